#!/usr/bin/env bash
# tour.sh [FILE]: runs the tour of README.md word for word and fails where it fails.
#
# A fenced block is part of the tour when the line before it is
#     <!-- tour: NAME -->
# The blocks run one after the other in one bash with `set -e`, in a fresh copy of
# this checkout, with the built broker and the Python clients first on PATH. A block
# after a line
#     <!-- tour output: NAME -->
# holds lines that block NAME must have printed.
#
# SABIR_BIN names the broker, else the release build is used. The tour gets ports of
# its own through the environment; a reader has the usual ones.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
readme=$(realpath "${1:-$root/README.md}")
binary=$(realpath "${SABIR_BIN:-$root/target/release/sabir}")
venv=$root/target/interop/venv
limit=${TOUR_SECONDS:-300}

[ -x "$binary" ] || { echo "FAIL tour: no broker at $binary"; echo "0 passed, 1 failed"; exit 1; }
room=$(mktemp -d "${TMPDIR:-/tmp}/sabir-tour.XXXXXX")
shell=
finish() {
    # The tour has a session of its own: whatever it left behind goes with it.
    [ -z "$shell" ] || kill -KILL -- "-$shell" 2>/dev/null || true
    rm -rf "$room"
}
trap finish EXIT

mkdir "$room/bin" "$room/checkout" "$room/out"
ln -s "$binary" "$room/bin/sabir"
tar -C "$root" --exclude=./target --exclude=./.git --exclude=node_modules --exclude=sabir-data -cf - . |
    tar -C "$room/checkout" -xf -

# Splits the marked blocks into $room/NAME.sh and $room/NAME.txt; the order goes to $room/order.
awk -v room="$room" '
    /^<!-- tour( output)?: [A-Za-z0-9_-]+ -->$/ {
        name = $0; sub(/^<!-- tour( output)?: /, "", name); sub(/ -->$/, "", name)
        file = room "/" name ($0 ~ /^<!-- tour output/ ? ".txt" : ".sh")
        if (file ~ /\.sh$/) print name > (room "/order")
        printf "" > file
        next
    }
    /^```/ { if (inside) { inside = 0; file = "" } else if (file) inside = 1; next }
    inside { print > file }
    !inside && file && NF { file = "" }
' "$readme"
if [ ! -s "$room/order" ]; then
    echo "FAIL tour: $readme has no block marked <!-- tour: NAME -->"
    echo "0 passed, 1 failed"
    exit 1
fi

{
    echo 'set -e'
    while read -r name; do
        echo "exec >'$room/out/$name' 2>&1"
        cat "$room/$name.sh"
        printf '\n: >%q\n' "$room/$name.done"
    done <"$room/order"
} >"$room/tour.sh"

mapfile -t ports < <(PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/tests/interop python3 -c \
    'import broker; print(*broker.free_ports(4), sep="\n")')
mqtt=()
if "$binary" serve --help | grep 'listeners\.mqtt=' >/dev/null; then
    mqtt=("MQTT_PORT=${ports[3]}" "SABIR__LISTENERS__MQTT=127.0.0.1:${ports[3]}")
fi
cd "$room/checkout"
status=0
env PATH="$room/bin:$venv/bin:$PATH" \
    STOMP_PORT="${ports[0]}" \
    SABIR_SERVER="stomp://127.0.0.1:${ports[0]}" \
    SABIR__LISTENERS__STOMP="127.0.0.1:${ports[0]}" \
    SABIR__LISTENERS__HTTP="127.0.0.1:${ports[1]}" \
    SABIR__LISTENERS__ANY="127.0.0.1:${ports[2]}" \
    ${mqtt[@]+"${mqtt[@]}"} \
    setsid timeout --foreground --kill-after=5 "$limit" bash "$room/tour.sh" </dev/null &
shell=$!
wait "$shell" || status=$?

passed=0 failed=0
while read -r name; do
    complaint=
    if [ ! -e "$room/$name.done" ]; then
        complaint="status $status"
        [ "$status" != 124 ] || complaint="not done within $limit s"
    elif [ -e "$room/$name.txt" ]; then
        while IFS= read -r line; do
            grep -qxF -- "$line" "$room/out/$name" || complaint="did not print: $line"
        done <"$room/$name.txt"
    fi
    if [ -n "$complaint" ]; then
        failed=$((failed + 1))
        echo "FAIL tour $name: $complaint"
        [ ! -e "$room/out/$name" ] || sed 's/^/     /' "$room/out/$name" | tail -n 40
        [ -e "$room/$name.done" ] || break
    else
        passed=$((passed + 1))
        echo "ok   tour $name"
        sed 's/^/     /' "$room/out/$name" | tail -n 8
    fi
done <"$room/order"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
