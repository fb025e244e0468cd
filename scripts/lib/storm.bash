# Shared code of the storm scripts: a gateway of their own, and figures out of a storm's JSON.
# Scripts source it, with `set -u`. It ends only processes that it started.

GATEWAY_PID=
GATEWAY_DIR=
STORM_PID=
# Whether limits that are too low are set. The commands that undo it are collected.
apply=no
undo=()

# The binary under test: RINGWAVE_BIN, the release build, or the one of the system.
find_binary() {
    local built="${CARGO_TARGET_DIR:-target}/release/ringwave"
    if [ -n "${RINGWAVE_BIN-}" ]; then
        BIN=$RINGWAVE_BIN
    elif [ -x "$built" ]; then
        BIN=$built
    else
        BIN=$(command -v ringwave) || die "no ringwave: cargo build --release, or set RINGWAVE_BIN"
    fi
    BIN=$(realpath "$BIN")
}

# start_gateway SHARDS PORT: starts one with the development app, on loopback. Settings go by
# environment.
start_gateway() {
    GATEWAY_DIR=$(mktemp -d)
    # It starts in a directory of its own, so that no .env or ringwave.toml is found.
    cd "$GATEWAY_DIR" || return 1
    "$BIN" start --dev --host 127.0.0.1 --port "$2" --shards "$1" >gateway.log 2>&1 &
    GATEWAY_PID=$!
    cd - >/dev/null || return 1
    local tries
    for tries in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then return 0; fi
        kill -0 "$GATEWAY_PID" 2>/dev/null || break
        sleep 0.1
    done
    echo "the gateway did not start ($tries tries):" >&2
    tail -5 "$GATEWAY_DIR/gateway.log" >&2
    stop_gateway
    return 1
}

# run_storm ARGUMENTS...: sets json and code. The storm runs in the background, so that a signal
# ends it too.
run_storm() {
    local out
    out=$(mktemp)
    "$BIN" storm "$@" --json >"$out" &
    STORM_PID=$!
    wait "$STORM_PID"
    code=$?
    STORM_PID=
    json=$(cat "$out")
    rm -f "$out"
}

end_all() {
    if [ -n "$STORM_PID" ]; then
        kill "$STORM_PID" 2>/dev/null
        wait "$STORM_PID" 2>/dev/null
    fi
    stop_gateway
}

stop_gateway() {
    [ -n "$GATEWAY_PID" ] || return 0
    kill "$GATEWAY_PID" 2>/dev/null
    local tries
    for tries in $(seq 150); do
        kill -0 "$GATEWAY_PID" 2>/dev/null || break
        if [ "$tries" -eq 150 ]; then kill -9 "$GATEWAY_PID" 2>/dev/null; fi
        sleep 0.1
    done
    wait "$GATEWAY_PID" 2>/dev/null
    GATEWAY_PID=
    rm -rf "$GATEWAY_DIR"
}

# check_sysctl NAME NEEDED: compares one number, or for tcp_mem the last of three.
check_sysctl() {
    local have last to
    have=$(sysctl_value "$1")
    last=${have##* }
    if [ -z "$have" ] || [ "$last" -ge "$2" ]; then
        verdict "$1" "${have:-absent}" "$2" ok
        return
    fi
    # From the second number of tcp_mem on the kernel saves memory, from the third on it refuses.
    to=$2
    if [ "$1" = net.ipv4.tcp_mem ]; then to="$(($2 / 2)) $(($2 * 3 / 4)) $2"; fi
    if [ "$apply" = yes ] && sysctl -qw "$1=$to" 2>/dev/null; then
        undo+=("sysctl -w $1='$have'")
        verdict "$1" "$have" "$2" "set to $to"
    else
        verdict "$1" "$have" "$2" "low: sysctl -w $1='$to' (or --apply as root)"
    fi
}

verdict() {
    printf '  %-30s %-22s needed %-30s %s\n' "$1" "$2" "$3" "$4"
}

# check_loopback_sysctls CONNECTIONS: checks the needs of so many connections with both ends on this
# host.
check_loopback_sysctls() {
    undo=()
    # File objects: two sockets per connection, and what the host has open anyway.
    check_sysctl fs.file-max $(($1 * 2 + 100000))
    # Pages: a message that waits in a socket charges at least one. Past the limit messages are
    # dropped and connections reset ("TCP: out of memory" in the kernel's log).
    check_sysctl net.ipv4.tcp_mem $(($1 + 65536))
    # Handshakes that wait to be accepted, per listener. A handshake past the limit costs its client
    # a second.
    check_sysctl net.core.somaxconn 4096
    check_sysctl net.ipv4.tcp_max_syn_backlog 4096
    # Closed connections are remembered for a minute. Past the limit the kernel warns and forgets
    # sooner.
    check_sysctl net.ipv4.tcp_max_tw_buckets 131072
    if [ -e /proc/sys/net/netfilter/nf_conntrack_max ]; then
        # If a firewall tracks connections, it drops those past its table without a word.
        check_sysctl net.netfilter.nf_conntrack_max $(($1 * 2 + 10000))
    fi
    if [ ${#undo[@]} -gt 0 ]; then
        echo "To undo what was set:"
        printf '  %s\n' "${undo[@]}"
    fi
}

# figure JSON OBJECT FIELD: prints a number of an outcome, or 0. Pairs (user, system) are summed.
figure() {
    local object value
    object=$(grep -o "\"$2\":{[^}]*" <<<"$1" | head -n 1)
    value=$(grep -o "\"$3\":[^]a-z\"}]*" <<<"$object" | head -n 1 | cut -d: -f2 | tr -d '[]' )
    awk -F, '{ sum = 0; for (i = 1; i <= NF; i++) sum += $i; printf "%.3f", sum }' <<<"${value:-0}"
}

# problems JSON: prints the problems of an outcome in words, the most frequent first.
problems() {
    grep -o '"problems":{[^}]*' <<<"$1" | cut -d'{' -f2 | cut -c -300
}

# is A OP B: compares two expressions of awk.
is() {
    awk "BEGIN { exit !(($1) $2 ($3)) }"
}

# calc EXPRESSION [FORMAT]: prints the result of awk's arithmetic.
calc() {
    awk "BEGIN { printf \"${2:-%.0f}\", $1 }"
}

sysctl_value() {
    tr '\t' ' ' 2>/dev/null <"/proc/sys/${1//.//}"
}

memory_available_mib() {
    awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo
}

die() {
    echo "${0##*/}: $1" >&2
    exit "${2:-78}"
}
