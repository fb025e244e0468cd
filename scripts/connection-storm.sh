#!/usr/bin/env bash
# Measures the capacity of this host: prepares it, runs ladders of storms until an objective breaks,
# and writes the capacity report: "this host: X connections at Y messages/s, bounded by Z".
#
#   scripts/connection-storm.sh [--quick] [--apply] [--out DIR] [--max CONNECTIONS]
#       [--p99 MS] [--handshake-p99 MS] [--cpu CORES] [--memory MIB] [--shards N] [--port PORT]
#       [--attach URL --pid PID --app-id ID --key KEY --secret SECRET]
#
#   --quick    a small ladder in under five minutes on two cores; for real sizing leave it out
#   --apply    sets the limits that are too low (root) and prints how to undo it
#   --attach   measures a server that runs already, of any make, instead of one started here
#
# Objectives, each of which ends a ladder: nothing lost, failed or cut; p99 of deliveries (100 ms);
# p99 of handshakes when connections are ramped (1000 ms); cores of the server (all of the host's);
# memory left on the host (1024 MiB).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. scripts/lib/storm.bash

quick=no out= max=1000000 port=18800 shards=0
p99_ms=100 handshake_p99_ms=1000 cores=$(nproc) memory_mib=1024
attach= pid= app=()
held=0 memory_before=0 bound_connections="the ladder's end" bound_messages="the ladder's end"
best_messages=0 best_deliveries=0 fanout_connections=0 command=

main() {
    command=$(command_line "$@")
    options "$@"
    find_binary
    ulimit -n "$(ulimit -Hn)" 2>/dev/null
    check_host
    out=${out:-storm-$(date +%Y%m%d-%H%M%S)}
    mkdir -p "$out" || die "cannot write to $out" 64
    trap end_all EXIT
    trap 'exit 130' INT TERM
    if [ -z "$attach" ]; then
        start_gateway "$shards" "$port" || exit 78
        attach=ws://127.0.0.1:$port pid=$GATEWAY_PID
    fi
    ladder_connections
    ladder_messages
    single_figures
    write_report
}

# Prints the command as it can be given again, except for the secret of an app.
command_line() {
    local word line=$0 withheld=no
    for word in "$@"; do
        if [ "$withheld" = yes ]; then word='[withheld]'; fi
        withheld=no
        if [ "$word" = --secret ]; then withheld=yes; fi
        line+=" $word"
    done
    echo "$line"
}

options() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --quick) quick=yes; shift; continue ;;
            --apply) apply=yes; shift; continue ;;
            --out) out=${2-} ;;
            --max) max=${2-} ;;
            --p99) p99_ms=${2-} ;;
            --handshake-p99) handshake_p99_ms=${2-} ;;
            --cpu) cores=${2-} ;;
            --memory) memory_mib=${2-} ;;
            --shards) shards=${2-} ;;
            --port) port=${2-} ;;
            --attach) attach=${2-} ;;
            --pid) pid=${2-} ;;
            --app-id | --key | --secret) app+=("$1" "${2-}") ;;
            *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
        esac
        [ $# -ge 2 ] || die "$1 needs a value" 64
        shift 2
    done
    if [ "$quick" = yes ] && [ "$max" -gt 50000 ]; then max=50000; fi
    if [ "$shards" -eq 0 ]; then
        # One shard per core, and more if their tables would be too short. SO_REUSEPORT spreads by
        # hash, so that a seventh of a table stays empty.
        shards=$(calc "int($max / ($(ulimit -Hn) * 0.85)) + 1")
        if [ "$shards" -lt "$(nproc)" ]; then shards=$(nproc); fi
    fi
}

# ---- the host -----------------------------------------------------------------------------------

check_host() {
    echo "This host: $(nproc) cores, $(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo) MiB, Linux $(uname -r)"
    check_nofile
    check_loopback_sysctls "$max"
    local need=$((max / 1024 * 11500 / 1024 + memory_mib))
    verdict "memory available" "$(memory_available_mib) MiB" "$need MiB for $max connections" \
        "$(is "$(memory_available_mib)" '>=' "$need" && echo ok || echo "ends the ladder")"
}

check_nofile() {
    local have
    have=$(ulimit -Hn)
    # The limit binds each ring's table. A shard and a ring of clients hold so many connections
    # each.
    local need=$((max / shards * 115 / 100))
    if [ "$have" != unlimited ] && [ "$have" -lt "$need" ]; then
        if [ "$apply" = yes ] && ulimit -Hn "$need" 2>/dev/null && ulimit -n "$need"; then
            verdict "nofile" "$have" "$need per shard" "set to $need for this run only"
        else
            verdict "nofile" "$have" "$need per shard" "caps a shard at $have connections (ulimit -Hn $need as root, or --shards)"
        fi
    else
        verdict "nofile" "$have" "$need per shard" ok
    fi
}

# ---- ladders ------------------------------------------------------------------------------------

# storm NAME ARGUMENTS...: runs one and sets json and code; its page goes to the report's directory.
storm() {
    local name=$1
    shift
    local with_pid=()
    [ -n "$pid" ] && with_pid=(--pid "$pid")
    run_storm "$@" --url "$attach" "${app[@]}" "${with_pid[@]}" --report "$out/$name.html"
    [ "$code" -le 1 ] || die "storm $* ended with $code" "$code"
    echo "$json" >"$out/$name.json"
}

# Prints the reason why the storm that just ran is past the objectives, or nothing if it is not.
broken() {
    local bad
    for bad in "connections failed" "connections cut" "messages lost" "messages duplicated" \
        "messages reordered" "messages unpublished" "messages unknown" "messages unsent"; do
        # shellcheck disable=SC2086 # object and field
        if is "$(figure "$json" $bad)" '>' 0; then
            echo "$(calc "$(figure "$json" $bad)") ${bad#* } ($(problems "$json"))"
            return
        fi
    done
    if is "$(figure "$json" latency_us p99)" '>' "$p99_ms * 1000"; then
        echo "p99 of deliveries: $(ms latency_us p99) (objective $p99_ms ms)"
    elif is "$(figure "$json" server cores)" '>' "$cores"; then
        echo "CPU: $(calc "$(figure "$json" server cores)" %.2f) cores (objective $cores)"
    elif is "$(memory_available_mib)" '<' "$memory_mib"; then
        echo "memory: $(memory_available_mib) MiB left (objective $memory_mib MiB)"
    fi
}

ms() {
    calc "$(figure "$json" "$1" "$2") / 1000" '%.1f ms'
}

# Measures the number of connections that the host holds.
ladder_connections() {
    echo "Connections: ramped, then held"
    local size sizes="1000 5000 20000 50000 100000 200000 350000 500000 750000 1000000"
    local hold=10
    if [ "$quick" = yes ]; then sizes="1000 10000 30000 50000" hold=2; fi
    for size in $sizes; do
        [ "$size" -le "$max" ] || break
        local capacity=$((shards * $(ulimit -n)))
        if [ -n "$GATEWAY_PID" ] && [ "$size" -gt $((capacity * 85 / 100)) ]; then
            bound_connections="nofile: $shards shards with tables of $(ulimit -n)"
            break
        fi
        local needed=$(((size - held) / 1024 * 11500 / 1024 + memory_mib))
        if is "$(memory_available_mib)" '<' "$needed"; then
            bound_connections="memory: $(memory_available_mib) MiB available, $size connections need $needed"
            break
        fi
        storm "connect-$size" connect --connections "$size" --duration "$hold" \
            --ramp "$(calc "$size / 5 < 5000 ? $size / 5 + 200 : 5000")"
        local why
        why=$(broken)
        if [ -z "$why" ] && is "$(figure "$json" handshake_us p99)" '>' "$handshake_p99_ms * 1000"; then
            why="p99 of handshakes: $(ms handshake_us p99) (objective $handshake_p99_ms ms)"
        fi
        printf '  %8d  handshake p99 %-10s gateway %5.0f MiB  %s\n' "$size" \
            "$(ms handshake_us p99)" "$(calc "$(figure "$json" server memory_held) / 1048576")" \
            "${why:-held}"
        if [ -n "$why" ]; then
            bound_connections=$why
            break
        fi
        if [ "$held" -eq 0 ]; then memory_before=$(figure "$json" server memory_before); fi
        held=$size
        connect_json=$json
    done
    [ "$held" -gt 0 ] || die "not even 1000 connections held: $bound_connections" 1
}

# Measures the messages per second to a channel that a part of those connections is subscribed to.
ladder_messages() {
    local seconds=10
    fanout_connections=$((held < 10000 ? held : 10000))
    if [ "$quick" = yes ]; then seconds=4 fanout_connections=$((held < 1000 ? held : 1000)); fi
    echo "Messages: published to one channel with $fanout_connections subscribers"
    local rate rates="1 2 5 10 20 35 50 75 100 150 200 300 500 750 1000 1500 2000 3000 5000"
    for rate in $rates; do
        # Rates below a tenth of what one core sends are left out, because any host bears them.
        is "$rate * $fanout_connections" '<' 10000 && continue
        storm "fanout-$rate" fanout --connections "$fanout_connections" --rate "$rate" \
            --publishers 4 --duration "$seconds"
        local why
        why=$(broken)
        printf '  %8d/s  %8.0f deliveries/s  p99 %-10s server %.2f cores, storm %.2f  %s\n' "$rate" \
            "$(figure "$json" messages delivered_per_s)" "$(ms latency_us p99)" \
            "$(figure "$json" server cores)" "$(figure "$json" storm cores)" "${why:-held}"
        if [ -n "$why" ]; then
            bound_messages=$why
            break
        fi
        best_messages=$rate
        best_deliveries=$(figure "$json" messages delivered_per_s)
        fanout_json=$json
    done
}

# Measures the cost of one publish and of one connection, and the effects of mass returns and slow
# readers.
single_figures() {
    local seconds=10 some=$((held < 5000 ? held : 5000))
    if [ "$quick" = yes ]; then seconds=3 some=1000; fi
    echo "API publishes, turnover, return of all, slow readers"
    storm publish publish --channels 100 --publishers 8 --rate 0 --duration "$seconds"
    publish_json=$json
    storm churn churn --connections $((some / 5)) --duration "$seconds"
    churn_json=$json
    storm reconnect reconnect --connections "$some" --rounds 2 --duration 1
    reconnect_json=$json
    # 2 MB/s to each: past what the kernel's buffers and the backlog of a reader hold within seconds.
    storm slow slow --connections 200 --slow-share 0.2 --rate 250 --publishers 4 --size 8000 \
        --duration $((seconds < 8 ? 8 : seconds))
    slow_json=$json
}

# ---- the report ---------------------------------------------------------------------------------

of() {
    calc "$(figure "$@")" "${format:-%.0f}"
}

write_report() {
    local rounds memory
    rounds=$(grep -o '"rounds_s":\[[^]]*' <<<"$reconnect_json" | cut -d'[' -f2 |
        awk -F, '{ for (i = 1; i <= NF; i++) printf "%s%.2f", (i > 1 ? " and " : ""), $i }')
    # The growth counts from before the first storm on, because memory is kept for the next
    # connection.
    memory=$(calc "($(figure "$connect_json" server memory_held) - $memory_before) / $held")
    {
        echo "# Capacity of $(uname -n)"
        echo
        echo "$(date -u '+%Y-%m-%d %H:%M UTC'), \`$command\`"
        echo
        echo "This host: $held connections (bounded by $bound_connections), and at"
        echo "$fanout_connections subscribers $best_messages messages/s, $(calc "$best_deliveries") deliveries/s"
        echo "(bounded by $bound_messages)."
        echo
        echo "$(nproc) cores, $(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo) MiB, Linux $(uname -r); $("$BIN" -V), $shards shards. The storm ran on the"
        echo "same cores. Objectives: nothing lost; p99 of deliveries $p99_ms ms, of handshakes"
        echo "$handshake_p99_ms ms; $cores cores; $memory_mib MiB of memory left."
        echo
        echo "| what | figure |"
        echo "|---|---|"
        echo "| gateway memory per connection | $memory B |"
        echo "| host memory per connection, both ends | $(of "$connect_json" storm host_bytes_per_connection) B |"
        echo "| CPU per handshake, ramped | $(format=%.1f of "$connect_json" server cpu_us_per_handshake) us |"
        echo "| CPU per delivery | $(format=%.2f of "${fanout_json:-}" server cpu_us_per_delivery) us |"
        echo "| p50 / p99 of deliveries at that rate | $(json=${fanout_json:-} ms latency_us p50) / $(json=${fanout_json:-} ms latency_us p99) |"
        echo "| API publishes, closed loop | $(of "$publish_json" messages sent_per_s)/s, $(format=%.1f of "$publish_json" server cpu_us_per_message) us of CPU each |"
        echo "| turnover (connect, subscribe, leave) | $(of "$churn_json" connections churn_per_s)/s, $(format=%.1f of "$churn_json" server cpu_us_per_churn) us of CPU each |"
        echo "| all drop and return | back after $rounds s |"
        echo "| a fifth stops reading: p99 of the others | $(json=$slow_json ms latency_us p99), $(of "$slow_json" messages lost) lost, $(of "$slow_json" connections slow_closed) of $(of "$slow_json" connections slow) slow ones closed |"
        echo
        echo "Plots and raw figures of each storm: \`*.html\` and \`*.json\` in this directory."
    } | tee "$out/capacity.md"
    echo
    echo "Written to $out/"
}

main "$@"
