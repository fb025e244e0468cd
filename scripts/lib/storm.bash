# What the storm scripts share: a gateway of their own, and figures out of a storm's JSON.
# Sourced, with `set -u`. Ends only processes that it started.

GATEWAY_PID=
GATEWAY_DIR=

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

# start_gateway SHARDS PORT: with the development app, on loopback. Settings go by environment.
start_gateway() {
    GATEWAY_DIR=$(mktemp -d)
    # In a directory of its own, so that no .env or ringwave.toml is found.
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

# figure JSON OBJECT FIELD: a number of an outcome, or 0. Pairs (user, system) are summed.
figure() {
    local object value
    object=$(grep -o "\"$2\":{[^}]*" <<<"$1" | head -n 1)
    value=$(grep -o "\"$3\":[^]a-z\"}]*" <<<"$object" | head -n 1 | cut -d: -f2 | tr -d '[]' )
    awk -F, '{ sum = 0; for (i = 1; i <= NF; i++) sum += $i; printf "%.3f", sum }' <<<"${value:-0}"
}

# problems JSON: what went wrong, in words, the most frequent first.
problems() {
    grep -o '"problems":{[^}]*' <<<"$1" | cut -d'{' -f2 | cut -c -300
}

# is A OP B: compares two numbers.
is() {
    awk -v a="$1" -v b="$3" "BEGIN { exit !(a $2 b) }"
}

# calc EXPRESSION [FORMAT]: arithmetic of awk.
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
