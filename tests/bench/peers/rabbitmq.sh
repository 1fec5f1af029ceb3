#!/usr/bin/env bash
# RabbitMQ, of Debian: STOMP 1.0 to 1.2 and MQTT 3.1 and 3.1.1 by its plug-ins; user guest, password guest. See common.sh
# for the verbs.
#
# Debian's 3.10 is old: its MQTT goes through AMQP queues, which version 4 no longer does. Its queues are classic ones, as
# a STOMP client gets them that asks for nothing else. With PEER_MEMORY=1 its files lie in memory.
name=rabbitmq
ports="stomp=27213 mqtt=27283 amqp=27272"
[ "${PEER_MEMORY:-0}" != 1 ] || PEER_ROOM=/dev/shm
. "$(dirname "$0")/common.sh"
mapper=27269 distribution=27225 # Erlang's own ports

install() { debian rabbitmq-server; }
version() { debian_version rabbitmq-server; }
durability() {
    echo "a persistent message is confirmed when it is synced, or, unsynced and unwritten, when a consumer has acknowledged it before"
}

written() { [ -s "$room/pid" ]; }

configure_and_launch() {
    cat >"$room/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$(port_of amqp)
stomp.listeners.tcp.1 = 127.0.0.1:$(port_of stomp)
stomp.default_user = guest
stomp.default_pass = guest
mqtt.listeners.tcp.1 = 127.0.0.1:$(port_of mqtt)
mqtt.allow_anonymous = true
END
    echo '[rabbitmq_stomp,rabbitmq_mqtt].' >"$room/plugins"
    export HOME=$room ERL_EPMD_PORT=$mapper ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_NODENAME=peer@localhost RABBITMQ_DIST_PORT=$distribution
    export RABBITMQ_CONFIG_FILE=$room/rabbitmq.conf RABBITMQ_CONF_ENV_FILE=$room/absent
    export RABBITMQ_ENABLED_PLUGINS_FILE=$room/plugins RABBITMQ_PID_FILE=$room/pid
    export RABBITMQ_MNESIA_BASE=$room/data RABBITMQ_LOG_BASE=$room
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    # Left alone, the server starts a port mapper that outlives it. One of ours can be ended.
    launch epmd -address 127.0.0.1 -port $mapper
    # A shell that waits for the broker proper, which writes its pid down.
    launch /usr/lib/rabbitmq/bin/rabbitmq-server
    until_or_give_up "writing its pid" written
    remember "$(cat "$room/pid")"
}

peer "$@"
