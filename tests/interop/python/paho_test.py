#!/usr/bin/env python3
"""paho-mqtt (PyPI) against a running broker, MQTT 3.1, 3.1.1 and 5.

MQTT_HOST and MQTT_PORT say where; BROKER=mosquitto leaves out the checks in which
we differ from Mosquitto on purpose. One line per check, then a summary.
The checks here hold in every version; those of MQTT 5 alone are in paho_v5.py.
"""

import random
import sys
import threading
import time
import traceback

import paho_v5
from mqtt_harness import (BROKER, PROTOCOLS, RUN, WAIT, Client, Failed, Will, expect, fresh_id, forget, persistent,
                          release, topic)


MOSQUITTO_OVERLOOKS = ["PINGREQ with a flag", "a server's packet"]


def connects(v):
    c = Client(v)
    expect(c.present, False, "session present")
    c.close()
    if v != "3.1":
        c = Client(v, "")
        assigned = getattr(c.connack, "AssignedClientIdentifier", None)
        if v == "5" and not assigned:
            raise Failed("no assigned client identifier")
        c.close()


def answers_pings(v):
    c = Client(v, keepalive=1)
    t = topic(v, "pings")
    c.subscribe(t)
    # Three keep alives and a half: without PINGRESP the library gives up, without PINGREQ the broker.
    time.sleep(3.5)
    c.send(t, b"still here")
    expect(c.take().payload, b"still here", "after the pings")
    c.close()


def thousands_in_order(v):
    for qos, count in ((0, 3000), (1, 3000), (2, 2000)):
        t = topic(v, "order", str(qos))
        rng = random.Random(7)
        bodies = [b"%d:" % i + rng.randbytes(rng.randrange(120)) for i in range(count)]
        producer, consumer = Client(v), Client(v)
        expect(consumer.subscribe(t, qos), qos, "granted")
        mids = [producer.send(t, body, qos, wait=False) for body in bodies]
        for i, body in enumerate(bodies):
            message = consumer.take()
            expect(message.payload, body, f"QoS {qos}, message {i}")
            expect((message.qos, message.retain, message.dup), (qos, False, False), "QoS, retain and DUP")
        for mid in mids if qos else ():
            producer.settled(mid)
        producer.close()
        consumer.quiet()
        consumer.close()


def payloads_of_every_shape(v):
    rng = random.Random(11)
    bodies = [
        b"",
        b"x",
        b"\x00",
        b"a\x00b\x00\x00c",
        bytes(range(256)),
        "ünï¢ødé \U0001f980\U0001f4a9 \u4e16\u754c".encode(),
        b"\xff\xfe\xc3\x28",
        b"\r\n\r\n",
        rng.randbytes(127),
        rng.randbytes(128),
        rng.randbytes(16383),
        rng.randbytes(16384),
        rng.randbytes(65535),
        rng.randbytes(65536),
        b"t" * 1_000_000,
        rng.randbytes(1 << 20),
        rng.randbytes((1 << 21) + 5),
        b"after the big one",
    ]
    for qos in (0, 1, 2):
        t = topic(v, "shapes", str(qos))
        producer, consumer = Client(v), Client(v)
        consumer.subscribe(t, qos)
        for body in bodies:
            producer.send(t, body, qos, wait=False)
        for i, body in enumerate(bodies):
            got = consumer.take().payload
            if got != body:
                raise Failed(f"QoS {qos}, payload {i} of {len(body)} bytes came back different, {len(got)} bytes")
        producer.close()
        consumer.close()


def topics_of_every_shape(v):
    base = topic(v, "names")
    names = ["/", "//", "/lead", "trail/", "a//b", "a.b/c.d", "a/b", "a.b", "with blank ", " lead", "*", ">", "a,b", "a?b=c",
             "queue:x", "ünï\U0001f980", "\ufefffeff", "100%", "%2F", "back\\slash", "l" * 200, "/".join("abcdefgh" * 3), "$inside"]
    if BROKER == "mosquitto":
        names.remove("\ufefffeff")
    wild, producer = Client(v), Client(v)
    exact = {name: Client(v) for name in ("a/b", "a.b", "a.b/c.d", "a//b", "with blank ")}
    wild.subscribe(f"{base}/#", 1)
    for name, client in exact.items():
        client.subscribe(f"{base}/{name}", 1)
    for name in names:
        producer.send(f"{base}/{name}", name.encode(), 1)
    for name in names:
        message = wild.take()
        expect((message.topic, message.payload), (f"{base}/{name}", name.encode()), "topic")
    for name, client in exact.items():
        producer.send(f"{base}/{name}", b"sentinel", 1)
        expect(client.payloads(2), [name.encode(), b"sentinel"], f"only {name!r} itself")


def effective_qos(v):
    t = topic(v, "effective")
    producer = Client(v)
    for granted in (0, 1, 2):
        c = Client(v)
        expect(c.subscribe(t, granted), granted, "SUBACK")
        for published in (0, 1, 2):
            producer.send(t, b"m", published)
            expect(c.take().qos, min(granted, published), f"published {published}, granted {granted}")
        c.close()


def many_filters_in_one_packet(v):
    base = topic(v, "many")
    c = Client(v)
    expect(c.subscribe_many((f"{base}/a", 2), (f"{base}/b", 0), (f"{base}/+/c", 1)), [2, 0, 1], "codes in order")
    for name in ("a", "b", "x/c"):
        c.send(f"{base}/{name}", name.encode(), 2)
    got = sorted((m.payload, m.qos) for m in (c.take() for _ in range(3)))
    expect(got, [(b"a", 2), (b"b", 0), (b"x/c", 1)], "messages")
    c.unsubscribe(f"{base}/a", f"{base}/+/c")
    for name in ("a", "x/c", "b"):
        c.send(f"{base}/{name}", name.encode(), 1)
    expect(c.take().payload, b"b", "what is left")
    c.quiet()


def wildcards(v):
    base = topic(v, "wild")
    wanted = {
        f"{base}/+/price": {"a/price", "b/price", "/price"},
        f"{base}/#": {"", "a/price", "a/b/price", "b/price", "/price", "b/size", "c", "c/"},
        f"{base}/+": {"c"},
        f"{base}/c/+": {"c/"},
        f"{base}/+/+/price": {"a/b/price"},
        f"{base}/a/#": {"a/price", "a/b/price"},
        f"+/{v}/wild/b/+": {"b/price", "b/size"},
    }
    names = ["a/price", "a/b/price", "b/price", "/price", "b/size", "c", "c/"]
    clients = {}
    for filter in wanted:
        clients[filter] = Client(v)
        clients[filter].subscribe(filter, 1)
    producer = Client(v)
    for name in names:
        producer.send(f"{base}/{name}", name.encode(), 1)
    producer.send(base, b"", 1)  # sport/# matches sport
    ends = {f"{base}/+/price": "z/price", f"{base}/#": "z", f"{base}/+": "z", f"{base}/c/+": "c/z",
            f"{base}/+/+/price": "z/z/price", f"{base}/a/#": "a/z", f"+/{v}/wild/b/+": "b/z"}
    for filter, client in clients.items():
        producer.send(f"{base}/{ends[filter]}", b"sentinel", 1)
        got = set()
        while (payload := client.take().payload) != b"sentinel":
            got.add(payload.decode())
        expect(got, wanted[filter], filter)
        client.close()


def dollar_topics_stay_apart(v):
    t = topic(v, "dollar")
    everything, one_level = Client(v), Client(v)
    everything.subscribe("#", 0)
    one_level.subscribe("+/#", 0)
    # Whatever the broker says below $SYS is retained or comes at once; a sentinel ends the wait.
    listener = Client(v)
    listener.subscribe("$SYS/#", 0)
    for client in (everything, one_level):
        Client(v).send(t, b"sentinel", 1)
        while (message := client.take()).topic != t:
            if message.topic.startswith("$"):
                raise Failed(f"a wildcard at the beginning matched {message.topic}")
        client.close()


def retained(v):
    base = topic(v, "retained")
    producer, live = Client(v), Client(v)
    live.subscribe(f"{base}/#", 2)
    producer.send(f"{base}/a", b"first", 1, retain=True)
    producer.send(f"{base}/a", b"second", 2, retain=True)
    producer.send(f"{base}/b/c", b"deep", 1, retain=True)
    producer.send(f"{base}/d", b"qos 0", 0, retain=True)
    producer.send(f"{base}/a", b"not kept", 1)
    got = [live.take() for _ in range(5)]
    # In any order: the library hands a message of QoS 2 over when it was released.
    expect({(m.payload, m.retain) for m in got},
           {(p, False) for p in (b"first", b"second", b"deep", b"qos 0", b"not kept")}, "live ones are not marked")
    c = Client(v)
    c.subscribe(f"{base}/#", 2)
    got = sorted((m.topic, m.payload, m.qos, m.retain) for m in (c.take() for _ in range(3)))
    expect(got, [(f"{base}/a", b"second", 2, True), (f"{base}/b/c", b"deep", 1, True), (f"{base}/d", b"qos 0", 0, True)],
           "by wildcard")
    c.subscribe(f"{base}/a", 0)
    message = c.take()
    expect((message.payload, message.qos, message.retain), (b"second", 0, True), "by name, at the granted QoS")
    c.subscribe(f"{base}/a", 0)
    expect(c.take().payload, b"second", "again with every SUBSCRIBE")
    c.close()
    producer.send(f"{base}/a", b"", 1, retain=True)
    message = live.take()
    expect((message.payload, message.retain), (b"", False), "the empty one is delivered like any other")
    c = Client(v)
    c.subscribe(f"{base}/a", 1)
    c.send(f"{base}/a", b"sentinel", 1)
    expect(c.take().payload, b"sentinel", "cleared")
    for name in ("b/c", "d"):
        producer.send(f"{base}/{name}", b"", 1, retain=True)
    c.close()


def retained_by_the_thousand(v):
    base = topic(v, "much")
    producer = Client(v)
    mids = [producer.send(f"{base}/{i % 10}/{i}", b"%d" % i, 1, retain=True, wait=False) for i in range(2000)]
    for mid in mids:
        producer.settled(mid)
    c = Client(v)
    c.subscribe(f"{base}/#", 1)
    got = sorted(int(c.take().payload) for _ in range(2000))
    expect(got, list(range(2000)), "every one of them")
    c.unsubscribe(f"{base}/#")
    c.subscribe(f"{base}/7/+", 1)
    expect(sorted(int(c.take().payload) for _ in range(200)), list(range(7, 2000, 10)), "those of one branch")
    mids = [producer.send(f"{base}/{i % 10}/{i}", b"", 1, retain=True, wait=False) for i in range(2000)]
    for mid in mids:
        producer.settled(mid)
    late = Client(v)
    late.subscribe(f"{base}/#", 1)
    late.send(f"{base}/z", b"sentinel", 1)
    expect(late.take().payload, b"sentinel", "all cleared")


def wills(v):
    for qos in (0, 1, 2):
        t = topic(v, "will", str(qos))
        watcher, producer = Client(v), Client(v)
        watcher.subscribe(t, 2)
        Client(v, will=Will(t, b"cut \x00\xff", qos)).cut()
        message = watcher.take()
        expect((message.payload, message.qos, message.retain), (b"cut \x00\xff", qos, False), "after a cut")
        Client(v, will=Will(t, b"never", qos)).close()
        producer.send(t, b"sentinel", qos)
        expect(watcher.take().payload, b"sentinel", "none after DISCONNECT")
        Client(v, will=Will(t, b"", qos)).cut()
        expect(watcher.take().payload, b"", "an empty one")
    t = topic(v, "will", "retained")
    watcher.subscribe(t, 1)
    Client(v, will=Will(t, b"kept", 1, retain=True)).cut()
    expect(watcher.take().payload, b"kept", "live")
    late = Client(v)
    late.subscribe(t, 1)
    message = late.take()
    expect((message.payload, message.retain), (b"kept", True), "a retained will")
    producer.send(t, b"", 1, retain=True)


def will_of_a_silent_client(v):
    t = topic(v, "will", "silent")
    watcher = Client(v)
    watcher.subscribe(t, 1)
    victim = Client(v, keepalive=1, will=Will(t, b"silent"))
    victim.freeze()
    expect(watcher.take().payload, b"silent", "after one and a half keep alives")


def will_after_a_protocol_error(v):
    t = topic(v, "will", "error")
    watcher = Client(v)
    watcher.subscribe(t, 1)
    victim = Client(v, will=Will(t, b"broke the rules"))
    victim.raw(b"\x30\x07\x00\x05a/+/b")
    expect(watcher.take().payload, b"broke the rules", "the broker closed")


def persistent_session(v):
    t, who = topic(v, "session"), fresh_id()
    producer = Client(v)
    c = persistent(v, who)
    expect(c.present, False, "session present at first")
    c.subscribe_many((f"{t}/1", 1), (f"{t}/2", 2))
    c.close()
    for i in range(500):
        mids = [producer.send(f"{t}/{qos}", b"%d" % i, qos, wait=False) for qos in (1, 2)]
        if i % 100 == 99:
            for mid in mids:
                producer.settled(mid)
    c = persistent(v, who)
    expect(c.present, v != "3.1", "session present")
    got = [c.take() for _ in range(1000)]
    for qos in (1, 2):
        mine = [m for m in got if m.topic == f"{t}/{qos}"]
        expect([m.payload for m in mine], [b"%d" % i for i in range(500)], f"kept while away, QoS {qos}")
        expect({(m.qos, m.retain) for m in mine}, {(qos, False)}, "their QoS")
    producer.send(f"{t}/1", b"live", 1)
    expect(c.take().payload, b"live", "the subscription goes on")
    c.cut()
    producer.send(f"{t}/1", b"after a cut", 1)
    c = persistent(v, who)
    expect(c.present, v != "3.1", "session present after a cut")
    expect(c.take().payload, b"after a cut", "kept after a cut")
    c.close()
    producer.send(f"{t}/1", b"thrown away", 1)
    c = Client(v, who, clean=True)
    expect(c.present, False, "session present after a clean start")
    c.subscribe(f"{t}/1", 1)
    producer.send(f"{t}/1", b"sentinel", 1)
    expect(c.take().payload, b"sentinel", "nothing left by a clean start")
    c.close()
    c = persistent(v, who)
    expect(c.present, False, "a clean session leaves nothing")
    c.close()
    forget(v, who)


def unacknowledged_come_back(v):
    for qos in (1, 2):
        t, who = topic(v, "again", str(qos)), fresh_id()
        producer = Client(v)
        c = persistent(v, who, manual_ack=True)
        c.subscribe(t, qos)
        for i in range(6):
            producer.send(t, b"%d" % i, qos)
        first = [c.take() for _ in range(6)]
        expect([m.dup for m in first], [False] * 6, "DUP at first")
        for message in first[:2]:
            c.ack(message)
        # An acknowledgement has no answer; one more message behind it shows that it was heard.
        c.send(t, b"6", qos)
        c.take()
        c.cut()
        c = persistent(v, who)
        expect(c.present, v != "3.1", "session present")
        if qos == 1:
            again = [c.take() for _ in range(5)]
            expect([m.payload for m in again], [b"2", b"3", b"4", b"5", b"6"], "again, in order")
            expect([m.mid for m in again][:4], [m.mid for m in first[2:]], "with their packet ids")
            expect({m.dup for m in again}, {True}, "DUP")
        # For QoS 2 the message was released before: PUBREL comes again, and no PUBLISH may.
        producer.send(t, b"sentinel", qos)
        expect(c.take().payload, b"sentinel", "nothing more")
        c.close()
        c = persistent(v, who)
        producer.send(t, b"sentinel", qos)
        expect(c.take().payload, b"sentinel", "nothing comes twice")
        c.close()
        forget(v, who)


def takeover(v):
    t, who = topic(v, "takeover"), fresh_id()
    old = persistent(v, who)
    old.subscribe(t, 1)
    new = persistent(v, who)
    expect(new.present, v != "3.1", "session present")
    gone = old.closed()
    if v == "5" and BROKER == "sabir":  # Mosquitto 2.0.11 only closes
        expect(gone, (True, 0x8E), "DISCONNECT to the old connection")
    new.send(t, b"to the new one", 1)
    expect(new.take().payload, b"to the new one", "the subscription moved")
    last = Client(v, who, clean=True)
    new.closed()
    expect(last.present, False, "session present after a clean start")
    last.subscribe(f"{t}/other", 1)
    last.send(t, b"nobody's", 1)
    last.send(f"{t}/other", b"sentinel", 1)
    expect(last.take().payload, b"sentinel", "the subscription is gone")


def unsubscribe(v):
    t = topic(v, "unsubscribe")
    c = Client(v)
    c.subscribe(t, 1)
    c.subscribe(f"{t}/#", 1)
    c.unsubscribe(f"{t}/#")
    c.send(f"{t}/x", b"nobody's", 1)
    c.send(t, b"one", 1)
    expect(c.take().payload, b"one", "the other filter stays")
    c.unsubscribe(f"{t}/+", f"{t}/#")  # neither is there
    c.unsubscribe(t)
    c.send(t, b"nobody's", 1)
    c.subscribe(t, 1)
    c.send(t, b"sentinel", 1)
    expect(c.take().payload, b"sentinel", "nothing while unsubscribed")
    c.quiet()


def subscribing_again_replaces(v):
    t = topic(v, "replace")
    c = Client(v)
    for qos in (0, 2, 1):
        expect(c.subscribe(t, qos), qos, "granted")
    for i in range(20):
        c.send(t, b"%d" % i, 2)
    got = [c.take() for _ in range(20)]
    expect([(m.payload, m.qos) for m in got], [(b"%d" % i, 1) for i in range(20)], "one copy each, at the last QoS")
    c.send(t, b"sentinel", 2)
    expect(c.take().payload, b"sentinel", "no more")


def fan_out_and_fan_in(v):
    t = topic(v, "fan")
    consumers = [Client(v) for _ in range(20)]
    for consumer in consumers:
        consumer.subscribe(f"{t}/+", 1)
    producers = [Client(v) for _ in range(10)]
    def work(number, producer):
        for i in range(50):
            producer.send(f"{t}/{number}", b"%d" % i, 1, wait=False)
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for consumer in consumers:
        got = [consumer.take() for _ in range(500)]
        for number in range(10):
            mine = [m.payload for m in got if m.topic == f"{t}/{number}"]
            expect(mine, [b"%d" % i for i in range(50)], f"order of producer {number}")


def shared_subscriptions(v):
    t, group = topic(v, "shared"), f"$share/{RUN}"
    members = [Client(v) for _ in range(3)]
    others = [Client(v) for _ in range(2)]
    plain, producer = Client(v), Client(v)
    for member in members:
        expect(member.subscribe(f"{group}/{t}/+", 1), 1, "granted")
    for other in others:
        other.subscribe(f"{group}-other/{t}/#", 2)
    plain.subscribe(f"{t}/#", 1)
    for i in range(300):
        producer.send(f"{t}/{i % 3}", b"%d" % i, 1, wait=i == 299)
    wanted = list(range(300))
    expect([int(p) for p in plain.payloads(300)], wanted, "the plain subscriber")
    for clients in (members, others):
        counts = collect(clients, 300)
        expect(sorted(sum(counts, [])), wanted, "each message to one member")
        if not all(counts):
            raise Failed(f"a member got nothing: {[len(c) for c in counts]}")
        for mine in counts:
            for branch in range(3):
                seen = [n for n in mine if n % 3 == branch]
                expect(seen, sorted(seen), "order within a member and topic")
    members[0].close()
    members[1].unsubscribe(f"{group}/{t}/+")
    for i in range(50):
        producer.send(f"{t}/{i % 3}", b"%d" % i, 1)
    expect([int(p) for p in members[2].payloads(50)], list(range(50)), "the last member gets all")
    members[1].quiet()


def collect(clients, count):
    """Takes `count` messages as they come to any of the clients; the numbers each one got."""
    seen = [[] for _ in clients]
    deadline = time.monotonic() + WAIT
    while sum(map(len, seen)) < count:
        if time.monotonic() > deadline:
            raise Failed(f"{sum(map(len, seen))} of {count} messages within {WAIT} s")
        idle = True
        for client, numbers in zip(clients, seen):
            while not client.messages.empty():
                numbers.append(int(client.messages.get().payload))
                idle = False
        if idle:
            time.sleep(0.002)
    return seen


def bad_packets_end_the_connection(v):
    none = b"\0" if v == "5" else b""  # properties

    def packet(first, rest):
        return bytes([first, len(rest)]) + rest

    cases = {
        "a topic with #": packet(0x30, b"\0\3a/#" + none),
        "a topic with +": packet(0x32, b"\0\5a/+/b\0\1" + none),
        "an empty topic": packet(0x30, b"\0\0" + none),
        "a topic with NUL": packet(0x30, b"\0\3a\0b" + none),
        "a topic that is not UTF-8": packet(0x30, b"\0\2a\xff" + none),
        "a surrogate in UTF-8": packet(0x30, b"\0\4a\xed\xa0\x80" + none),
        "QoS 3": packet(0x36, b"\0\1a\0\1" + none),
        "packet id 0": packet(0x32, b"\0\1a\0\0" + none),
        "a second CONNECT": packet(0x10, b"\0\4MQTT\4\2\0\x3c\0\1x"),
        "SUBSCRIBE without a filter": packet(0x82, b"\0\1" + none),
        "SUBSCRIBE for QoS 3": packet(0x82, b"\0\1" + none + b"\0\1a\3"),
        "UNSUBSCRIBE without a filter": packet(0xA2, b"\0\1" + none),
        "SUBSCRIBE with flags 0": packet(0x80, b"\0\1" + none + b"\0\1a\0"),
        "PINGREQ with a flag": packet(0xC1, b""),
        "packet type 0": packet(0x00, b""),
        "a server's packet": packet(0xD0, b""),
        "a length of five bytes": b"\x30\x80\x80\x80\x80\1",
    }
    if BROKER == "mosquitto":  # 2.0.11 overlooks these
        for name in MOSQUITTO_OVERLOOKS:
            cases.pop(name, None)
    if v == "3.1":  # these are rules of 3.1.1
        for name in ("SUBSCRIBE without a filter", "UNSUBSCRIBE without a filter", "SUBSCRIBE with flags 0",
                     "PINGREQ with a flag"):
            cases.pop(name, None)
    complaints = []
    for name, data in cases.items():
        c = Client(v)
        c.raw(data)
        try:
            c.closed()
        except Failed as problem:
            complaints.append(f"{name}: {problem}")
    if complaints:
        raise Failed("; ".join(complaints))


def bad_filters_are_refused(v):
    filters = [b"a/#/x", b"a#", b"a/+b", b"a+/b", b"", b"a\0", b"$share/g", b"$share//a", b"$share/g+/a", b"$share/g/"]
    if BROKER == "mosquitto":  # 2.0.11 takes them for topics
        filters = filters[:6]
    for filter in filters:
        c = Client(v)
        rest = b"\0\7" + (b"\0" if v == "5" else b"") + bytes([0, len(filter)]) + filter + b"\1"
        c.raw(bytes([0x82, len(rest)]) + rest)
        # Either the connection ends or the SUBACK says no.
        codes = c.raw_answer("subscribe", 7)
        if codes and codes[0].value < 0x80:
            raise Failed(f"filter {filter!r} was accepted: {codes[0]}")


CHECKS = [
    connects,
    answers_pings,
    thousands_in_order,
    payloads_of_every_shape,
    topics_of_every_shape,
    effective_qos,
    many_filters_in_one_packet,
    wildcards,
    dollar_topics_stay_apart,
    retained,
    retained_by_the_thousand,
    wills,
    will_of_a_silent_client,
    will_after_a_protocol_error,
    persistent_session,
    unacknowledged_come_back,
    takeover,
    unsubscribe,
    subscribing_again_replaces,
    fan_out_and_fan_in,
    shared_subscriptions,
    bad_packets_end_the_connection,
    bad_filters_are_refused,
]


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    passed = failed = 0
    for version in PROTOCOLS:
        for check in CHECKS + (paho_v5.CHECKS if version == "5" else []):
            label = f"paho {version} {check.__name__}"
            if only not in label:
                continue
            try:
                check(version)
            except Exception as problem:  # whatever the library throws is a failed check
                failed += 1
                where = traceback.extract_tb(problem.__traceback__)[1].lineno
                print(f"FAIL {label}: {problem or type(problem).__name__} (line {where})", flush=True)
                if not isinstance(problem, Failed):
                    traceback.print_exc()
            else:
                passed += 1
                print(f"ok   {label}", flush=True)
            release()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
