#!/usr/bin/env bash
# Holds 1,000,000 subscribed connections on one host, both ends on it, with pings, and publishes to
# all of them every 30 seconds. Prints memory per connection, loss, and the time to deliver to all;
# or, if the host can't, the most that it held and what stopped it.
#
#   scripts/million.sh [--connections N] [--duration SECONDS] [--every SECONDS] [--ping SECONDS]
#                      [--port PORT] [--report FILE.html] [--apply]
#
# Needs 11 KiB of memory per connection (both ends and the kernel's). Takes as many shards and
# client rings as the limit of open files asks for: it binds the file table of each ring, not the
# process, so that a limit of 20,000 is enough for a million. --apply sets kernel limits that are too
# low (root) and prints how to undo it.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. scripts/lib/storm.bash

connections=1000000
duration=95
every=30
ping=60
port=18700
report=
# The measured memory of both ends of a connection, and the memory that the host keeps beside them.
BYTES_PER_CONNECTION=11500
MEMORY_RESERVE_MIB=1024
# The planned use of a shard's table, because SO_REUSEPORT spreads by hash, not evenly.
TABLE_USE_PERCENT=85
ATTEMPTS=4

main() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --apply) apply=yes; shift; continue ;;
            --connections) connections=$2 ;;
            --duration) duration=$2 ;;
            --every) every=$2 ;;
            --ping) ping=$2 ;;
            --port) port=$2 ;;
            --report) report=$(realpath -m "$2") ;;
            *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
        esac
        shift 2
    done
    find_binary
    trap end_all EXIT
    trap 'exit 130' INT TERM
    check_loopback_sysctls "$connections"
    ulimit -n "$(ulimit -Hn)" 2>/dev/null
    local stopped_by=
    for _ in $(seq "$ATTEMPTS"); do
        fit_memory
        if hold; then
            conclude "$stopped_by"
            exit 0
        fi
        stopped_by="$connections: $reason"
        echo "  $connections do not hold: $reason"
        # The next size is the most that it held, less a tenth for what changes between two runs.
        connections=$(calc "($held > 0 && $held < $connections ? $held : $connections) * 0.9")
    done
    echo "No size held in $ATTEMPTS attempts. Last: $stopped_by"
    exit 1
}

# Lowers the number of connections to the memory that is available.
fit_memory() {
    local most
    most=$(calc "($(memory_available_mib) - $MEMORY_RESERVE_MIB) * 1048576 / $BYTES_PER_CONNECTION")
    if [ "$connections" -gt "$most" ]; then
        echo "  Memory for about $most connections is available; asked were $connections."
        stopped_by="$connections: memory ($(memory_available_mib) MiB available)"
        connections=$most
    fi
}

# Runs one size. Sets json, held and reason. Fails if anything was lost.
hold() {
    local table shards extra=()
    table=$(ulimit -n)
    shards=$(calc "int($connections / ($table * $TABLE_USE_PERCENT / 100)) + 1")
    if [ "$shards" -lt "$(nproc)" ]; then shards=$(nproc); fi
    [ -n "$report" ] && extra=(--report "$report")
    echo "  $connections connections: $shards shards and $(calc "int(($connections + $table - 1) / $table)") client rings with tables of $table"
    REVERB_APP_ACTIVITY_TIMEOUT=$ping start_gateway "$shards" "$port" || exit 78
    held=0
    watch_memory &
    local watch=$!
    run_storm fanout --connections "$connections" --channels 1 --publishers 1 \
        --rate "$(calc "1 / $every" %.6f)" --duration "$duration" --ping "$ping" --grace 60 \
        --url "ws://127.0.0.1:$port" --pid "$GATEWAY_PID" --progress "${extra[@]}"
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    held=$(calc "$(figure "$json" connections held)")
    reason=$(why)
    stop_gateway
    return "$code"
}

# Ends the gateway before memory runs out, because the kernel would end any process of the host.
watch_memory() {
    while sleep 0.5; do
        if [ "$(memory_available_mib)" -lt $((MEMORY_RESERVE_MIB / 2)) ]; then
            touch "$GATEWAY_DIR/out-of-memory"
            kill -9 "$GATEWAY_PID" 2>/dev/null
            return
        fi
    done
}

why() {
    if [ -e "$GATEWAY_DIR/out-of-memory" ]; then
        echo "memory: less than $((MEMORY_RESERVE_MIB / 2)) MiB were left"
    else
        echo "held $held, failed $(calc "$(figure "$json" connections failed)"), cut" \
            "$(calc "$(figure "$json" connections cut)"), lost" \
            "$(calc "$(figure "$json" messages lost)"); $(problems "$json")"
    fi
}

conclude() {
    local server slab host storm
    server=$(figure "$json" server bytes_per_connection)
    storm=$(figure "$json" storm bytes_per_connection)
    slab=$(figure "$json" storm slab_bytes_per_connection)
    host=$(figure "$json" storm host_bytes_per_connection)
    cat <<END

  $connections subscribed connections, both ends on this host
  ramp                $(figure "$json" connections ramp_s) s, $(calc "$(figure "$json" connections ramp_per_s)") handshakes/s, $(calc "$(figure "$json" server cpu_us_per_handshake)" %.1f) us of server CPU each
  gateway memory      $(calc "$server") B per connection (user)
  kernel memory       $(calc "$slab / 2") B per socket, $(calc "$slab") B per connection (both ends)
  client memory       $(calc "$storm") B per connection (user)
  host memory         $(calc "$host") B per connection, all together
  messages            $(calc "$(figure "$json" messages sent)") published, $(calc "$(figure "$json" messages delivered)") delivered, $(calc "$(figure "$json" messages lost)") lost, $(calc "$(figure "$json" messages duplicated)") duplicated
  delivered to all    within $(calc "$(figure "$json" latency_us max) / 1e6" %.2f) s (median subscriber $(calc "$(figure "$json" latency_us p50) / 1e6" %.2f) s)
  server CPU          $(calc "$(figure "$json" server cores)" %.2f) cores while it held, with a ping per connection and $ping s
  client CPU          $(calc "$(figure "$json" storm cores)" %.2f) cores
END
    if [ -n "$1" ]; then echo "  larger sizes        stopped by: $1"; fi
}

main "$@"
