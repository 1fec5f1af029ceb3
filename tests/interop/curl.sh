#!/usr/bin/env bash
# curl.sh [ONLY]: curl sends and fetches a body that is never in the broker's memory whole. HTTP_HOST and HTTP_PORT say where
# the broker is; CURL_MIB how large the body is. One line per check, then a summary; the checks whose names hold ONLY.
set -uo pipefail
host=${HTTP_HOST:-127.0.0.1} port=${HTTP_PORT:-8161} mib=${CURL_MIB:-300} only=${1:-}
url=http://$host:$port queue=curl.$$.$RANDOM
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
passed=0 failed=0

check() {
    local name=$1
    shift
    case $name in *"$only"*) ;; *) return ;; esac
    if "$@" >"$room/said" 2>&1; then
        echo "ok   $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name: $(tail -n 3 "$room/said" | tr '\n' ' ')"
        failed=$((failed + 1))
    fi
}

fetch() {
    curl -sS --fail --max-time 300 -o "$room/back" "$url/api/message/$queue?type=queue&readTimeout=10000" &&
        cmp "$room/body" "$room/back"
}

with_length() {
    curl -sS --fail --max-time 300 -X POST -T "$room/body" -H 'Content-Type: application/octet-stream' \
        "$url/v1/queues/$queue/messages" && fetch
}

chunked() {
    curl -sS --fail --max-time 300 -X POST -T - -H 'Content-Type: application/octet-stream' \
        "$url/v1/queues/$queue/messages" <"$room/body" && fetch
}

too_large() {
    local status
    status=$(curl -sS --max-time 60 -o "$room/problem" -w '%{http_code}' -X POST -H 'Content-Length: 99999999999' \
        --data-binary @"$room/body" "$url/v1/queues/$queue/messages?raw=true")
    [ "$status" = 413 ] && grep -q too-large "$room/problem"
}

head -c $((mib << 20)) /dev/urandom >"$room/body"
check "a body whose length is announced comes back whole" with_length
check "a body in chunks comes back whole" chunked
check "a body that is too large is refused before it comes" too_large
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
