#!/usr/bin/env bash
# Mosquitto without Nagle's algorithm, beside the one with it: mosquitto.sh says what that changes.
PEER_NODELAY=1 exec "$(dirname "$0")/mosquitto.sh" "$@"
