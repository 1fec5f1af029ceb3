# shellcheck shell=bash
# What the peer scripts share: their verbs, and the care of a process that has to end again.
#
#   install    install the broker (Debian's package, or cargo); nothing is done where it is there
#   start      start it on loopback with a fresh folder of its own; prints its pid once every port answers
#   stop       end it and remove the folder
#   pid        the broker's process
#   ports      NAME=PORT of everything it listens on
#   version    its version
#   durability what it keeps, and when that is on the disk, as it is configured here
#
# A script sets `name` and `ports`, defines install, configure_and_launch, version and durability, and ends with
# `peer "$@"`. Nothing of a packaged configuration is used, and no service is started or stopped.
#
#   PEER_ROOM=/path    where the folder is made (the disk that durable messages go to; default $TMPDIR or /tmp)
#   PEER_SECONDS=120   how long `start` waits
#   PEER_MEMORY=1      without persistence, where the broker has such a mode
#
# Ports lie below 32768, where Linux gives none to clients: no socket of a load generator can be in the way.
set -euo pipefail

state=${TMPDIR:-/tmp}/sabir-peers-$UID/${name:?}
room=
# Debian keeps servers where only root's PATH looks.
PATH=$PATH:/usr/sbin

die() {
    echo "$name: $*" >&2
    exit 1
}

port_of() {
    local each
    for each in $ports; do
        [ "${each%%=*}" != "$1" ] || echo "${each#*=}"
    done
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# since PID: when it started, in clock ticks after boot; nothing if it has ended. Together with the pid it names a process
# for good, where the pid alone may belong to somebody else tomorrow.
since() { sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

lives() { [ -n "${1:-}" ] && [ -n "${2:-}" ] && [ "$(since "$1")" = "$2" ]; }

remember() { echo "$1 $(since "$1")" >>"$room/processes"; }

# launch COMMAND...: in a session of its own, so that it outlives this script. The last one launched is the broker.
launch() {
    setsid "$@" >>"$room/log" 2>&1 </dev/null &
    remember $!
}

# The line that names the broker's process.
broker() { tail -n 1 "$state/processes" 2>/dev/null || true; }

runs() {
    local pid born
    read -r pid born < <(broker) || return 1
    lives "$pid" "$born"
}

stop() {
    local pid born
    [ -L "$state" ] || return 0
    room=$(readlink "$state")
    while read -r pid born; do
        lives "$pid" "$born" || continue
        kill "$pid" 2>/dev/null || true
        for _ in {1..300}; do
            lives "$pid" "$born" || continue 2
            sleep 0.1
        done
        echo "$name: process $pid does not end when asked to; killed" >&2
        kill -KILL "$pid" 2>/dev/null || true
    done < <(tac "$room/processes" 2>/dev/null)
    rm -rf "$room" "$state"
}

give_up() {
    tail -n 30 "$room/log" >&2 || true
    stop
    die "$*"
}

# until_or_give_up WHAT CONDITION...: waits for a condition as long as the broker lives and there is time.
until_or_give_up() {
    local what=$1
    shift
    until "$@"; do
        runs || give_up "it has ended: $what"
        [ $SECONDS -lt "${PEER_SECONDS:-120}" ] || give_up "not within ${PEER_SECONDS:-120} s: $what"
        sleep 0.02
    done
}

start() {
    local each
    if runs; then die "it runs already, with process $(broker | cut -d' ' -f1)"; fi
    stop
    # One that had ten thousand connections is gone a moment before its sockets are.
    for each in $ports; do
        for _ in {1..100}; do
            answers "${each#*=}" || continue 2
            sleep 0.1
        done
        die "something else listens on $each"
    done
    mkdir -p -m 700 "$(dirname "$state")"
    [ -O "$(dirname "$state")" ] || die "$(dirname "$state") belongs to somebody else"
    room=$(mktemp -d "${PEER_ROOM:-${TMPDIR:-/tmp}}/sabir-peer-$name.XXXXXX")
    ln -sfn "$room" "$state"
    SECONDS=0
    configure_and_launch
    for each in $ports; do
        until_or_give_up "listening on $each" answers "${each#*=}"
    done
    broker | cut -d' ' -f1
}

# debian PACKAGE...: installs what is missing, and lets Debian start nothing of it.
debian() {
    local each missing=() policy=/usr/sbin/policy-rc.d
    for each in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$each" 2>/dev/null)" = installed ] || missing+=("$each")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing, and only root may install: ${missing[*]}"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The version of a package of Debian, without Debian's own part.
debian_version() { dpkg-query -W -f '${Version}\n' "$1" 2>/dev/null | sed -E 's/^[0-9]+://; s/[-+].*//'; }

peer() {
    case ${1:-} in
        install | start | stop | version | durability) "$1" ;;
        pid)
            runs || die "it does not run"
            broker | cut -d' ' -f1
            ;;
        ports) echo "$ports" ;;
        *) die "install, start, stop, pid, ports, version or durability" ;;
    esac
}
