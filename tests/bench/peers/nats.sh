#!/usr/bin/env bash
# nats-server, of Debian: its own protocol, and MQTT 3.1.1. See common.sh for the verbs.
#
# Its MQTT sessions and everything at QoS 1 live in JetStream, which this version syncs once a minute; there is no
# switch to sync by message. With PEER_MEMORY=1 JetStream's files lie in memory.
name=nats
ports="nats=27422 mqtt=27483"
[ "${PEER_MEMORY:-0}" != 1 ] || PEER_ROOM=/dev/shm
. "$(dirname "$0")/common.sh"

install() { debian nats-server; }
version() { debian_version nats-server; }
durability() { echo "QoS 0 and its own protocol keep nothing; QoS 1 in JetStream's files, synced once a minute and not by message"; }

configure_and_launch() {
    cat >"$room/conf" <<END
server_name: peer
listen: "127.0.0.1:$(port_of nats)"
mqtt { listen: "127.0.0.1:$(port_of mqtt)" }
jetstream { store_dir: "$room" }
max_connections: 100000
END
    launch nats-server -c "$room/conf"
}

peer "$@"
