#!/usr/bin/env bash
# mosquitto.sh start|stop|pid|version: Mosquitto on loopback, as a peer for tests/compare. It has to be installed
# (Debian: mosquitto); nothing of its packaged configuration is used.
#
# What a comparison should state. Persistence is on, as Debian ships it: the state is in memory, written as one
# snapshot every half hour and at the end, never synced message by message. Two limits are raised so that nothing is
# dropped: queued messages of a subscriber (1000, here unlimited) and unacknowledged ones (20, here 1000). Everything
# else is its default.
#   MOSQUITTO_PORT=23883       where it listens
#   MOSQUITTO_EXTRA='line'     more lines of configuration
set -euo pipefail

port=${MOSQUITTO_PORT:-23883}
room=${TMPDIR:-/tmp}/sabir-peer-mosquitto-$UID-$port
# Debian keeps it where only root's PATH looks.
PATH=$PATH:/usr/sbin

die() {
    echo "mosquitto.sh: $*" >&2
    exit 1
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# The pid we wrote down, if it still is that of a Mosquitto.
pid() {
    local pid
    pid=$(cat "$room/pid" 2>/dev/null) || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = mosquitto ] && echo "$pid"
}

start() {
    command -v mosquitto >/dev/null || die "mosquitto is not installed"
    if pid >/dev/null; then die "it runs already, with pid $(pid)"; fi
    if answers; then die "something else listens on 127.0.0.1:$port"; fi
    rm -rf "$room"
    mkdir -m 700 "$room"
    cat >"$room/conf" <<END
user $(id -un)
listener $port 127.0.0.1
allow_anonymous true
persistence true
persistence_location $room/
max_queued_messages 0
max_inflight_messages 1000
log_dest stderr
log_type error
log_type warning
${MOSQUITTO_EXTRA:-}
END
    setsid mosquitto -c "$room/conf" >"$room/log" 2>&1 </dev/null &
    echo $! >"$room/pid"
    for _ in {1..200}; do
        pid >/dev/null || die "it does not start: $(tail -n 5 "$room/log")"
        if answers; then
            pid
            return
        fi
        sleep 0.05
    done
    die "it does not listen on 127.0.0.1:$port"
}

stop() {
    local running
    if running=$(pid); then
        kill "$running"
        for _ in {1..200}; do
            pid >/dev/null || break
            sleep 0.05
        done
        if pid >/dev/null; then die "pid $running does not end"; fi
    fi
    rm -rf "$room"
}

case ${1:-} in
    start | stop) "$1" ;;
    pid) pid || die "it does not run" ;;
    version) mosquitto -h | head -n 1 ;;
    *) die "start, stop, pid or version" ;;
esac
