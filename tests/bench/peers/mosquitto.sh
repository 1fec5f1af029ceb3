#!/usr/bin/env bash
# Mosquitto, of Debian: MQTT 3.1, 3.1.1 and 5. See common.sh for the verbs.
#
# Two of its limits are raised so that it drops nothing: queued messages of a subscriber (1000, here without limit) and
# unacknowledged ones (20, here 1000). It leaves Nagle's algorithm on; with PEER_NODELAY=1 it does not, which is what
# anybody would set who cares for latency, and costs it throughput. Both can run side by side.
name=mosquitto
ports="mqtt=27383"
[ "${PEER_NODELAY:-0}" != 1 ] || name=mosquitto-nodelay ports="mqtt=27384"
. "$(dirname "$0")/common.sh"

install() { debian mosquitto mosquitto-clients; }
version() { debian_version mosquitto; }
durability() { echo "state in memory, written as one snapshot every half hour and at the end; no message is synced"; }

configure_and_launch() {
    cat >"$room/conf" <<END
user $(id -un)
listener $(port_of mqtt) 127.0.0.1
allow_anonymous true
persistence $([ "${PEER_MEMORY:-0}" = 1 ] && echo false || echo true)
persistence_location $room/
max_queued_messages 0
max_inflight_messages 1000
set_tcp_nodelay $([ $name = mosquitto ] && echo false || echo true)
log_dest stderr
log_type error
log_type warning
${PEER_EXTRA:-}
END
    launch mosquitto -c "$room/conf"
}

peer "$@"
