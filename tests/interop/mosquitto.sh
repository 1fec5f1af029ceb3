#!/usr/bin/env bash
# mosquitto.sh [ONLY]: mosquitto_pub, mosquitto_sub and mosquitto_rr (Debian's mosquitto-clients) against a running
# broker, MQTT 3.1, 3.1.1 and 5. MQTT_HOST and MQTT_PORT say where; BROKER=mosquitto leaves out what we do otherwise
# on purpose. One line per check, then a summary; the checks whose names hold ONLY.
set -uo pipefail
host=${MQTT_HOST:-127.0.0.1} port=${MQTT_PORT:-1883} broker=${BROKER:-sabir} wait=${INTEROP_WAIT:-30} only=${1:-}
run=m$$x$((RANDOM * RANDOM % 1000000))
room=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$room"' EXIT
passed=0 failed=0 version=
diary=() # by pid

fail() {
    echo "$*" >>"$room/complaint"
    return 1
}

# same WHAT WANTED GOT
same() { [ "$2" = "$3" ] || fail "$1: expected «$(head -c 200 <<<"$2" | tr '\n' ' ')», got «$(head -c 200 <<<"$3" | tr '\n' ' ')»"; }

pub() { timeout "$wait" mosquitto_pub -h "$host" -p "$port" -V "$version" "$@" || fail "mosquitto_pub $*: status $?"; }
sub() { timeout "$wait" mosquitto_sub -h "$host" -p "$port" -V "$version" "$@"; }

# listen NAME ARG...: a mosquitto_sub in the background that is subscribed when this returns; its pid is in $pid,
# what it prints in $room/NAME.
listen() {
    local name=$1 turns=0
    shift
    : >"$room/$name.raw" # here, not when the other process gets round to it
    stdbuf -oL mosquitto_sub -h "$host" -p "$port" -V "$version" -d "$@" >"$room/$name.raw" 2>&1 &
    pid=$!
    diary[pid]=$room/$name.raw
    until grep -q '^Subscribed (mid' "$room/$name.raw"; do
        sleep 0.05
        turns=$((turns + 1))
        if [ $turns -gt $((wait * 20)) ] || ! kill -0 "$pid" 2>/dev/null; then
            fail "$name does not subscribe: $(tail -n 3 "$room/$name.raw")"
            return 1
        fi
    done
}

# printed NAME: what it printed for messages; formats begin with a dot, which tells them from its diary.
printed() { sed -n 's/^\.//p' "$room/$1.raw"; }

# ended PID: waits for one that was told how many messages to take. Now and then mosquitto_sub 2.0.11 says
# DISCONNECT and stays: then it is helped along.
ended() {
    local turns=0
    while kill -0 "$1" 2>/dev/null; do
        sleep 0.05
        turns=$((turns + 1))
        if [ $((turns % 20)) = 0 ] && tail -n 1 "${diary[$1]:-/dev/null}" | grep -q 'sending DISCONNECT$'; then
            murder "$1"
            return
        fi
        if [ $turns -gt $((wait * 20)) ]; then
            kill "$1"
            fail "mosquitto_sub does not end: $(tail -qn 2 "$room"/*.raw | tr '\n' ' ')"
            return 1
        fi
    done
}

# await NAMES COUNT: until the files hold that many messages between them.
await() {
    local turns=0
    until [ "$(for name in $1; do printed "$name"; done | wc -l)" -ge "$2" ]; do
        sleep 0.05
        turns=$((turns + 1))
        [ $turns -le $((wait * 20)) ] || { fail "no $2 messages for $1"; return 1; }
    done
}

# murder PID: kill -9.
murder() {
    kill -9 "$1"
    wait "$1" 2>/dev/null
    true
}

five() { [ "$version" = mqttv5 ]; }
# Arguments for a session that outlives its connection.
kept() { five && echo "-c -x 600" || echo "-c"; }
forget() { sub -i "$1" -t "$t/nothing" -E; }

# --- what holds in every version; $t is a topic of each check's own

every_spelling_of_the_version() {
    local spelling
    for spelling in "$version" "${version#mqttv}"; do
        timeout "$wait" mosquitto_pub -h "$host" -p "$port" -V "$spelling" -t "$t" -m x || fail "-V $spelling"
    done
}

lines_in_order() {
    local q
    for q in 0 1 2; do
        # Mosquitto 2.0.11 sends its own client more at once than that allows.
        if five && [ "$broker$q" = mosquitto2 ]; then continue; fi
        listen got -q 2 -t "$t/$q" -C 500 -F '.%q %r %p' || return
        seq 500 | pub -t "$t/$q" -q $q -l || return
        ended "$pid" && same "QoS $q" "$(seq -f "$q 0 %.0f" 500)" "$(printed got)" || return
    done
}

granted_qos() {
    local q
    for q in 0 1 2; do
        listen got -q $q -t "$t" -C 3 -F '.%q' || return
        pub -t "$t" -q 0 -m a && pub -t "$t" -q 1 -m b && pub -t "$t" -q 2 -m c && ended "$pid" || return
        # Three connections sent them: the order between them is nobody's promise.
        same "granted $q" "$(printf '%s\n' 0 $((q < 1 ? q : 1)) "$q" | sort)" "$(printed got | sort)" || return
    done
}

files_come_back_as_they_were() {
    local size
    for size in 0 1 127 128 65536 1048576 3000000; do
        head -c "$size" /dev/urandom >"$room/sent"
        pub -t "$t" -q 1 -r -f "$room/sent" || return
        if [ "$size" = 0 ]; then continue; fi
        sub -t "$t" -q 1 -N -C 1 >"$room/back"
        cmp "$room/sent" "$room/back" || fail "$size bytes came back different" || return
    done
    printf 'from\nstandard\0input' | pub -t "$t" -q 1 -r -s || return
    same "standard input" "$(printf 'from\nstandard\0input' | base64)" "$(sub -t "$t" -N -C 1 | base64)" || return
    pub -t "$t" -r -n -q 1
}

# With -C the client does not end here, so it ends by time, with status 27.
empty_by_removal() { [ "$(sub -t "$1" --remove-retained -W 1 2>/dev/null | head -n 1)" = deep ] || fail "nothing to remove"; }

retained() {
    pub -t "$t/a" -q 1 -r -m old && pub -t "$t/a" -q 2 -r -m new && pub -t "$t/b/c" -q 1 -r -m deep && pub -t "$t/d" -q 1 -m live || return
    same "by wildcard" "1 $t/a new
1 $t/b/c deep" "$(sub -t "$t/#" -q 1 -C 2 -F '%r %t %p' | sort)" || return
    same "--retained-only" "new" "$(sub -t "$t/a" --retained-only -C 1)" || return
    listen got -t "$t/+" -C 2 -F '.%r %p' && pub -t "$t/a" -q 1 -r -m newer && ended "$pid" || return
    same "a live one is not marked" "1 new
0 newer" "$(printed got)" || return
    pub -t "$t/a" -q 1 -r -n && empty_by_removal "$t/b/c" && pub -t "$t/z" -q 1 -r -m sentinel || return
    same "cleared" "sentinel" "$(sub -t "$t/#" -q 1 -C 1)" || return
    pub -t "$t/z" -q 1 -r -n
}

wildcards() {
    listen got -v -q 1 -t "$t/+/price" -t "$t/all/#" -t "$t/left" -T "$t/out/price" -U "$t/left" -C 5 -F '.%t' || return
    local name
    for name in a/price a/b/price out/price left all all/x/y /price b/price; do pub -t "$t/$name" -q 1 -m "$name" || return; done
    ended "$pid" && same "topics" "$t/a/price
$t/all
$t/all/x/y
$t//price
$t/b/price" "$(printed got)"
}

wills() {
    local victim
    listen watcher -q 2 -t "$t/will" -F '.%q %p' || return
    local watcher=$pid
    listen victim -t "$t/none" --will-topic "$t/will" --will-payload 'killed' --will-qos 1 || return
    murder "$pid"
    await watcher 1 || return
    # One that ends by itself says goodbye.
    listen victim -t "$t/one" -C 1 --will-topic "$t/will" --will-payload never --will-qos 2 || return
    victim=$pid
    pub -t "$t/one" -m x && ended "$victim" && pub -t "$t/will" -q 2 -m sentinel && await watcher 2 || return
    same "killed and ended" "1 killed
2 sentinel" "$(printed watcher)" || return
    listen victim -t "$t/none" --will-topic "$t/will" --will-payload kept --will-retain || return
    murder "$pid"
    await watcher 3 || return
    same "retained" "1 kept" "$(sub -t "$t/will" -C 1 -F '%r %p')" || return
    kill "$watcher"
    pub -t "$t/will" -q 1 -r -n
}

persistent_session() {
    local id=$run-s$version
    sub -i "$id" $(kept) -q 2 -t "$t" -E || fail "status $?" || return
    local second=2
    if [ "$broker" = mosquitto ]; then second=1; fi # as above
    seq 1 50 | pub -t "$t" -q 1 -l && seq 51 100 | pub -t "$t" -q "$second" -l && pub -t "$t" -q "$second" -m end || return
    same "kept while away" "$(seq 100; echo end)" "$(sub -i "$id" $(kept) -q 2 -t "$t" -C 101)" || return
    # Subscribed to something else as well, and no more to the first.
    sub -i "$id" $(kept) -q 1 -t "$t/other" -U "$t" -E || return
    pub -t "$t" -q 1 -m gone && pub -t "$t/other" -q 1 -m stays || return
    same "after -U" "stays" "$(sub -i "$id" $(kept) -q 1 -t "$t/other" -C 1)" || return
    pub -t "$t/other" -q 1 -m forgotten && forget "$id" && pub -t "$t/other" -q 1 -m nobody && sub -i "$id" $(kept) -q 1 -t "$t/other" -E &&
        pub -t "$t/other" -q 1 -m sentinel || return
    same "after a clean start" "sentinel" "$(sub -i "$id" $(kept) -q 1 -t "$t/other" -C 1)" || return
    forget "$id"
}

killed_in_the_middle() {
    local id=$run-k$version
    listen first -i "$id" $(kept) -q 2 -t "$t" -F '.%p' || return
    pub -t "$t" -q 2 -m one && await first 1 || return
    murder "$pid"
    seq 20 | pub -t "$t" -q 2 -l || return
    same "what came while it was dead" "$(seq 20)" "$(sub -i "$id" $(kept) -q 2 -t "$t" -C 21 -W 2 2>/dev/null | grep -v one)" || return
    forget "$id"
}

take_over() {
    local id=$run-t$version first
    listen first -i "$id" -t "$t" || return
    first=$pid
    listen second -i "$id" -t "$t" -C 1 -F '.%p' || return
    # The first one connects again by itself, so it is made to stop before it takes over in its turn.
    murder "$first"
    if ! kill -0 "$pid" 2>/dev/null; then return 0; fi
    grep -q 'CONNACK (0)' "$room/second.raw" || fail "the second one was refused"
    kill "$pid"
}

shared() {
    local names="" i pids=""
    for i in 1 2 3; do
        listen "member$i" -t "\$share/$run/$t/#" -q 1 -F '.%p' || return
        pids="$pids $pid" names="$names member$i"
    done
    listen plain -t "$t/#" -q 1 -F '.%p' || return
    seq 90 | pub -t "$t/x" -q 1 -l && await "$names" 90 && await plain 90 || return
    same "the plain one" "$(seq 90)" "$(printed plain)" || return
    same "each to one member" "$(seq 90)" "$(for i in $names; do printed "$i"; done | sort -n)" || return
    for i in $names; do [ -n "$(printed "$i")" ] || fail "$i got nothing" || return; done
    kill $pids "$pid"
}

many_at_once() {
    local i pids=""
    listen got -q 1 -t "$t/+" -F '.%p' || return
    for i in $(seq 20); do
        seq "$((i * 100))" "$((i * 100 + 49))" | pub -t "$t/$i" -q 1 -l &
        pids="$pids $!"
    done
    wait $pids
    await got 1000 || return
    same "all of 20 publishers" "$(for i in $(seq 20); do seq "$((i * 100))" "$((i * 100 + 49))"; done)" "$(printed got | sort -n)" || return
    for i in 1 20; do
        same "order of publisher $i" "$(seq "$((i * 100))" "$((i * 100 + 49))")" "$(printed got | awk -v i="$i" 'int($1 / 100) == i')" || return
    done
    kill "$pid"
}

request_and_response() {
    local answerer
    : >"$room/requests"
    # Its readiness shows by a retained message that it takes first.
    pub -t "$t/service" -q 1 -r -m ready || return
    stdbuf -oL mosquitto_sub -h "$host" -p "$port" -V "$version" -t "$t/service" -q 1 -C 3 -F '%R %D %p' >"$room/requests" 2>&1 &
    answerer=$!
    local i=0
    until grep -q ready "$room/requests"; do sleep 0.05; i=$((i + 1)); [ $i -lt $((wait * 20)) ] || fail "no answerer" || return; done
    pub -t "$t/service" -q 1 -r -n || return # its second
    (
        until [ "$(wc -l <"$room/requests")" -ge 3 ]; do sleep 0.05; done
        read -r topic correlation text < <(tail -n 1 "$room/requests" | sed "s#^  *#$t/answers none #")
        if five; then
            pub -t "$topic" -q 1 -D publish correlation-data "$correlation" -D publish user-property answered yes -m "answer to $text"
        else
            pub -t "$topic" -q 1 -m "answer to $text"
        fi
    ) &
    local more=()
    if five; then more=(-D publish correlation-data c-17); fi
    same "answer" "$(five && echo "c-17 answered:yes answer to ask" || echo "  answer to ask")" \
        "$(timeout "$wait" mosquitto_rr -h "$host" -p "$port" -V "$version" -t "$t/service" -e "$t/answers" -q 1 -m ask ${more[@]+"${more[@]}"} -F '%D %P %p')"
    ended "$answerer"
}

timeouts() {
    local status=0
    sub -t "$t" -W 1 >/dev/null 2>&1 || status=$?
    same "status after -W in vain" 27 "$status"
}

# --- MQTT 5 alone

properties() {
    listen got -q 1 -t "$t" -D subscribe subscription-identifier 42 -C 2 -F '.%p|%C|%R|%D|%F|%P|%S|%E' || return
    pub -t "$t" -q 1 -m text -D publish content-type 'text/plain; x' -D publish response-topic answers/here \
        -D publish correlation-data c:1 -D publish payload-format-indicator 1 -D publish user-property b 2 \
        -D publish user-property a 1 -D publish user-property b 1 || return
    pub -t "$t" -q 1 -m bare || return
    ended "$pid" && same "properties" "text|text/plain; x|answers/here|c:1|1|b:2 a:1 b:1|42|
bare||||||42|" "$(printed got)"
}

expiry() {
    local id=$run-x
    sub -i "$id" -c -x 600 -q 1 -t "$t" -E || return
    pub -t "$t" -q 1 -m short -D publish message-expiry-interval 1 && pub -t "$t" -q 1 -m long -D publish message-expiry-interval 100 || return
    sleep 2.5 # what is measured is time
    same "message" "long 9" "$(sub -i "$id" -c -x 1 -q 1 -t "$t" -C 1 -F '%p %E' | cut -c1-6)" || return
    pub -t "$t" -q 1 -m lost || return
    sleep 2.5
    pub -t "$t" -q 1 -r -m sentinel || return
    same "session" "sentinel" "$(sub -i "$id" -c -x 1 -q 1 -t "$t" -C 1)" || return
    pub -t "$t" -q 1 -r -n && forget "$id"
}

aliases() {
    listen got -t "$t/#" -q 1 -C 5 -F '.%t %p' || return
    pub -t "$t/long/name" -q 1 -m again --repeat 5 -D publish topic-alias 3 || return
    ended "$pid" && same "topics" "$(for _ in 1 2 3 4 5; do echo "$t/long/name again"; done)" "$(printed got)"
}

will_properties() {
    listen watcher -t "$t/will" -q 1 -C 2 -F '.%p|%C|%P' || return
    local watcher=$pid
    listen victim -t "$t/none" -x 60 -c -i "$run-w" --will-topic "$t/will" --will-payload late --will-qos 1 \
        -D will will-delay-interval 1 -D will content-type text/will -D will user-property k v || return
    murder "$pid"
    pub -t "$t/will" -q 1 -m first && ended "$watcher" && same "will" "first||
late|text/will|k:v" "$(printed watcher)" || return
    forget "$run-w"
}

# mosquitto_sub that is told to stop disconnects with reason 0x04: its will is sent.
disconnect_with_will() {
    listen watcher -t "$t/will" -q 1 -C 1 -F '.%p' || return
    local watcher=$pid
    listen victim -t "$t/none" --will-topic "$t/will" --will-payload stopped --will-qos 1 || return
    kill "$pid"
    ended "$watcher" && same "will" "stopped" "$(printed watcher)"
}

checks="every_spelling_of_the_version lines_in_order granted_qos files_come_back_as_they_were retained wildcards wills
persistent_session killed_in_the_middle take_over shared many_at_once request_and_response timeouts"
five="properties expiry aliases will_properties disconnect_with_will"

for version in mqttv31 mqttv311 mqttv5; do
    for check in $checks $(five && echo "$five"); do
        label="mosquitto $version $check"
        [[ $label == *"$only"* ]] || continue
        t=$run/$version/$check
        rm -f "$room/complaint"
        status=0
        "$check" || status=$?
        if [ $status = 0 ] && [ ! -e "$room/complaint" ]; then
            passed=$((passed + 1))
            echo "ok   $label"
        else
            failed=$((failed + 1))
            echo "FAIL $label: $(head -n 3 "$room/complaint" 2>/dev/null || echo "status $status")"
        fi
        kill $(jobs -p) 2>/dev/null
        wait 2>/dev/null
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
