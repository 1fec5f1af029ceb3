#!/usr/bin/env bash
# rumqttd, by cargo: MQTT 3.1.1 on one port, MQTT 5 on another. See common.sh for the verbs.
#
# The configuration is its own sample but for the payload limit (20 KiB there) and the console and exporter, which are
# left out. It keeps a log in memory for each filter, 10 segments of 100 MiB: who falls behind further loses messages.
#   RUMQTTD_ROOT=/path   where cargo installs it
name=rumqttd
ports="mqtt=27583 mqtt5=27584"
. "$(dirname "$0")/common.sh"
wanted=0.20.0
root=${RUMQTTD_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir-peers/rumqttd}

# Without --locked: one crate of its lock file (metrics 0.22.1) no longer compiles.
install() { [ "$(version)" = "$wanted" ] || cargo install rumqttd --version "$wanted" --root "$root" --quiet -j1; }
version() { "$root/bin/rumqttd" --version 2>/dev/null | awk '{ print $2 }'; }
durability() { echo "memory only"; }

listener() {
    cat <<END
[$1]
name = "$1"
listen = "127.0.0.1:$2"
next_connection_delay_ms = 1
[$1.connections]
connection_timeout_ms = 60000
max_payload_size = 16777216
max_inflight_count = 100
dynamic_filters = true
END
}

configure_and_launch() {
    {
        cat <<END
id = 0
[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
END
        listener v4.1 "$(port_of mqtt)"
        listener v5.1 "$(port_of mqtt5)"
    } >"$room/conf.toml"
    launch "$root/bin/rumqttd" -q -c "$room/conf.toml"
}

peer "$@"
