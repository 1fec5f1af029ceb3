"""The checks of paho_test.py that only MQTT 5 has."""

import time

from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.packettypes import PacketTypes

from mqtt_harness import BROKER, FOR_EVER, RUN, Client, Failed, Will, expect, fresh_id, forget, persistent, topic

V = "5"
PAIRS = [("b", "2"), ("a", "1"), ("b", "1"), ("b", "2"), ("", ""), ("ünï\U0001f980", "=: \\n"), ("long", "v" * 3000)]
TRAVELLERS = {
    "PayloadFormatIndicator": 1,
    "ContentType": "text/plain; charset=utf-8 \U0001f980",
    "ResponseTopic": "answers/to/me",
    "CorrelationData": bytes(range(256)),
    "UserProperty": PAIRS,
}


def expect_closed(client, codes, what):
    """The broker said DISCONNECT with one of the codes and closed."""
    try:
        gone = client.closed()
    except Failed as problem:
        raise Failed(f"{what}: {problem}") from None
    if BROKER == "mosquitto":  # which often only closes
        return
    if not gone.by_server or gone.code not in codes:
        raise Failed(f"{what}: expected DISCONNECT with one of {[hex(c) for c in codes]}, got {gone}")


def properties_of(message, names=TRAVELLERS):
    return {name: getattr(message.properties, name, None) for name in names}


def properties_travel(v):
    t = topic(v, "properties")
    kept, c = fresh_id(), Client(v)
    away = persistent(v, kept)
    away.subscribe(t, 2)
    away.close()
    c.subscribe(t, 2)
    for qos in (0, 1, 2):
        c.send(t, b"text", qos, **TRAVELLERS)
        expect(properties_of(c.take()), TRAVELLERS, f"QoS {qos}")
    c.send(t, b"\xff", 1, PayloadFormatIndicator=0)
    expect(c.take().properties.json().get("ContentType"), None, "nothing added")
    c.send(t, b"kept", 1, retain=True, **TRAVELLERS)
    c.take()
    late = Client(v)
    late.subscribe(t, 1)
    expect(properties_of(late.take()), TRAVELLERS, "of a retained message")
    c.send(t, b"", 1, retain=True)
    away = persistent(v, kept)
    # QoS 0 may or may not have been queued.
    got = [m for m in (away.take() for _ in range(4)) if m.payload == b"text" and m.qos]
    for message in got:
        expect(properties_of(message), TRAVELLERS, "of a message that was queued")
    away.close()
    forget(v, kept)
    w = topic(v, "properties", "will")
    watcher = Client(v)
    watcher.subscribe(w, 1)
    Client(v, will=Will(w, b"text", **TRAVELLERS)).cut()
    expect(properties_of(watcher.take()), TRAVELLERS, "of a will")


def message_expiry(v):
    t, who = topic(v, "expiry"), fresh_id()
    producer, c = Client(v), persistent(v, who)
    c.subscribe(t, 1)
    producer.send(t, b"live", 1, MessageExpiryInterval=50)
    left = c.take().properties.MessageExpiryInterval
    if not 45 <= left <= 50:
        raise Failed(f"{left} s left of 50 at once")
    c.close()
    producer.send(t, b"short", 1, MessageExpiryInterval=1)
    producer.send(t, b"long", 1, MessageExpiryInterval=100)
    producer.send(t, b"for ever", 1)
    producer.send(f"{t}/r", b"short", 1, retain=True, MessageExpiryInterval=1)
    producer.send(f"{t}/s", b"long", 1, retain=True, MessageExpiryInterval=100)
    time.sleep(2.5)  # what is measured is time
    c = persistent(v, who)
    message = c.take()
    expect(message.payload, b"long", "the expired one is gone")
    left = message.properties.MessageExpiryInterval
    if not 80 <= left <= 98:
        raise Failed(f"{left} s left of 100 after 2.5 s")
    message = c.take()
    expect((message.payload, hasattr(message.properties, "MessageExpiryInterval")), (b"for ever", False), "without expiry")
    c.subscribe(f"{t}/+", 1)
    message = c.take()
    expect(message.topic, f"{t}/s", "retained messages expire")
    left = message.properties.MessageExpiryInterval
    if not 80 <= left <= 98:
        raise Failed(f"{left} s left of 100 of a retained message after 2.5 s")
    producer.send(f"{t}/s", b"", 1, retain=True)
    c.close()
    forget(v, who)


def session_expiry(v):
    t = topic(v, "sessions")
    ids = {name: fresh_id() for name in ("none", "short", "long", "ended", "prolonged")}
    first = {"none": {}, "short": {"SessionExpiryInterval": 1}, "long": {"SessionExpiryInterval": FOR_EVER},
             "ended": {"SessionExpiryInterval": 3600}, "prolonged": {"SessionExpiryInterval": 1}}
    last = {"ended": {"SessionExpiryInterval": 0}, "prolonged": {"SessionExpiryInterval": 3600}}
    for name, who in ids.items():
        c = Client(v, who, **first[name])
        c.subscribe(t, 1)
        c.close(**last.get(name, {}))
    time.sleep(2.5)  # what is measured is time
    for name, who in ids.items():
        c = Client(v, who, clean=False)
        expect(c.present, name in ("long", "prolonged"), f"session present of {name!r}")
        c.close()
    # What is connected does not expire, however long ago its last session was.
    who = fresh_id()
    c = persistent(v, who, SessionExpiryInterval=1)
    c.subscribe(t, 1)
    time.sleep(2.5)
    c.send(t, b"m", 1)
    expect(c.take().payload, b"m", "not while connected")
    c.close()


def connack_says_what_there_is(v):
    c = Client(v, "")
    for name in ("MaximumQoS", "ServerReference", "AuthenticationMethod", "ResponseInformation"):
        if hasattr(c.connack, name):
            raise Failed(f"CONNACK has {name} = {getattr(c.connack, name)}")
    for name in ("RetainAvailable", "WildcardSubscriptionAvailable", "SubscriptionIdentifierAvailable",
                 "SharedSubscriptionAvailable"):
        expect(getattr(c.connack, name, 1), 1, name)
    assigned = c.connack.AssignedClientIdentifier
    other = Client(v, "").connack.AssignedClientIdentifier
    if not assigned or assigned == other:
        raise Failed(f"assigned the ids {assigned!r} and {other!r}")
    c.close(SessionExpiryInterval=0)
    c = Client(v)
    expect(getattr(c.connack, "AssignedClientIdentifier", None), None, "none assigned when there is one")
    c.close()
    # An assigned id names the session later.
    c = Client(v, "", SessionExpiryInterval=60)
    assigned = c.connack.AssignedClientIdentifier
    c.close()
    c = Client(v, assigned, clean=False)
    expect(c.present, True, "session present by the assigned id")
    c.close()


def subscription_identifiers(v):
    t = topic(v, "ids")
    c = Client(v)
    c.subscribe(f"{t}/#", 0, SubscriptionIdentifier=268_435_455)
    c.subscribe(f"{t}/a", 2, SubscriptionIdentifier=7)
    c.subscribe(f"{t}/+", 1)
    for i in range(5):
        c.send(f"{t}/a", b"%d" % i, 2)
    copies = [c.take() for _ in range(5)]
    c.send(f"{t}/b/c", b"deep", 1)
    deep = c.take()
    if BROKER == "sabir":
        for i, message in enumerate(copies):
            expect(message.payload, b"%d" % i, "one copy each")
            expect(sorted(message.properties.SubscriptionIdentifier), [7, 268_435_455], "all identifiers that match")
            expect(message.qos, 2, "the highest QoS")
        expect(deep.properties.SubscriptionIdentifier, [268_435_455], "the one that matches")
    c.subscribe(f"{t}/a", 2, SubscriptionIdentifier=9)
    c.unsubscribe(f"{t}/#", f"{t}/+")
    for _ in ([] if BROKER == "sabir" else range(10)):
        c.take()
    c.send(f"{t}/a", b"replaced", 2)
    message = c.take()
    expect((message.payload, message.properties.SubscriptionIdentifier), (b"replaced", [9]), "the identifier was replaced")
    c.subscribe(f"{t}/a", 2)
    c.send(f"{t}/a", b"bare", 2)
    message = c.take()
    expect((message.payload, hasattr(message.properties, "SubscriptionIdentifier")), (b"bare", False), "no identifier")
    c.send(f"{t}/r", b"kept", 1, retain=True)
    c.subscribe(f"{t}/r", 1, SubscriptionIdentifier=3)
    message = c.take()
    expect((message.payload, message.properties.SubscriptionIdentifier), (b"kept", [3]), "on a retained message")
    c.send(f"{t}/r", b"", 1, retain=True)


def no_local(v):
    t = topic(v, "local")
    c, other = Client(v), Client(v)
    c.subscribe(t, 1, no_local=True)
    other.subscribe(t, 1, no_local=True)
    c.send(t, b"mine", 1)
    other.send(t, b"theirs", 1)
    expect(c.take().payload, b"theirs", "not one's own")
    expect(other.take().payload, b"mine", "but others'")
    c.quiet()
    other.quiet()
    # The will of a client with this id is its own publication as well.
    if BROKER == "mosquitto":  # 2.0.11 accepts the next one
        return
    bad = Client(v)
    bad.subscribe(f"$share/{RUN}/{t}", 1, no_local=True, wait=False)
    expect_closed(bad, (0x82,), "no local on a shared subscription")


def retain_handling(v):
    t = topic(v, "handling")
    producer = Client(v)
    producer.send(t, b"kept", 1, retain=True)
    for handling, first, again in ((0, True, True), (1, True, False), (2, False, False)):
        c = Client(v)
        for number, expected in enumerate((first, again)):
            c.subscribe(t, 1, handling=handling)
            if expected:
                message = c.take()
                expect((message.payload, message.retain), (b"kept", True), f"handling {handling}, subscribe {number}")
            producer.send(t, b"live", 1)
            expect(c.take().payload, b"live", f"handling {handling}, subscribe {number}: nothing retained")
        c.unsubscribe(t)
        c.subscribe(t, 1, handling=handling)
        if first:
            expect(c.take().payload, b"kept", f"handling {handling} after UNSUBSCRIBE")
        c.quiet()
        c.close()
    # Handling 1 and a session that has the subscription already.
    who = fresh_id()
    c = persistent(v, who)
    c.subscribe(t, 1, handling=1)
    expect(c.take().payload, b"kept", "new subscription")
    c.close()
    c = persistent(v, who)
    c.subscribe(t, 1, handling=1)
    producer.send(t, b"live", 1)
    expect(c.take().payload, b"live", "not new in a resumed session")
    c.close()
    forget(v, who)
    producer.send(t, b"", 1, retain=True)


def retain_as_published(v):
    t = topic(v, "as-published")
    c, other, producer = Client(v), Client(v), Client(v)
    c.subscribe(t, 1, as_published=True)
    other.subscribe(t, 1, as_published=False)
    for retain in (True, False, True):
        producer.send(t, b"m", 1, retain=retain)
        expect(c.take().retain, retain, "as published")
        expect(other.take().retain, False, "not as published")
    producer.send(t, b"", 1, retain=True)
    expect(c.take().retain, True, "the one that clears")


def shared_gets_no_retained(v):
    if BROKER == "mosquitto":  # 2.0.11 sends them
        return
    t = topic(v, "shared-retained")
    c = Client(v)
    c.send(t, b"kept", 1, retain=True)
    c.subscribe(f"$share/{RUN}/{t}", 1)
    c.send(t, b"sentinel", 1)
    expect(c.take().payload, b"sentinel", "nothing retained")
    c.send(t, b"", 1, retain=True)


def shared_backlog_goes_to_who_stays(v):
    if BROKER == "mosquitto":  # 2.0.11 loses what a member that leaves has not acknowledged
        return
    t, filter = topic(v, "shared-backlog"), f"$share/{RUN}b/{topic(v, 'shared-backlog')}"
    producer = Client(v)
    holder = Client(v, manual_ack=True)
    holder.subscribe(filter, 1)
    for i in range(10):
        producer.send(t, b"%d" % i, 1)
    expect([int(p) for p in holder.payloads(10)], list(range(10)), "the only member")
    other = Client(v)
    other.subscribe(filter, 1)
    holder.cut()
    expect(sorted(int(p) for p in other.payloads(10)), list(range(10)), "unacknowledged ones move on")
    producer.send(t, b"sentinel", 1)
    expect(other.take().payload, b"sentinel", "and only once")
    # A member that is away does not get what one that is here could have.
    who = fresh_id()
    away = persistent(v, who)
    away.subscribe(filter, 1)
    away.close()
    for i in range(20):
        producer.send(t, b"%d" % i, 1)
    expect([int(p) for p in other.payloads(20)], list(range(20)), "all to the one that is connected")
    # And with nobody here the group keeps its messages.
    other.close()
    for i in range(20):
        producer.send(t, b"%d" % i, 1)
    away = persistent(v, who)
    expect([int(p) for p in away.payloads(20)], list(range(20)), "kept for a member that is away")
    away.close()
    forget(v, who)


def will_delay(v):
    t = topic(v, "will-delay")
    watcher, producer = Client(v), Client(v)
    watcher.subscribe(f"{t}/#", 1)

    def victim(name, seconds, who=None, clean=True, expiry=3600):
        will = Will(f"{t}/{name}", name.encode(), WillDelayInterval=seconds)
        return Client(v, who, clean=clean, will=will, SessionExpiryInterval=expiry)

    began = time.monotonic()
    saved, ended, restarted = fresh_id(), fresh_id(), fresh_id()
    victim("saved", 1, saved).cut()
    Client(v, saved, clean=False, SessionExpiryInterval=3600)
    victim("late", 3).cut()
    producer.send(f"{t}/now", b"now", 1)
    expect(watcher.take().payload, b"now", "not at once")
    # The session's end comes before the delay's.
    victim("ended", 60, ended, expiry=1).cut()
    expect(watcher.take().payload, b"ended", "with the session")
    if time.monotonic() - began < 0.9:
        raise Failed("the session's end was not waited for")
    expect(watcher.take().payload, b"late", "after the delay, and none of the one that came back")
    if time.monotonic() - began < 2.9:
        raise Failed("the delay was not waited for")
    if BROKER == "mosquitto":  # 2.0.11 forgets the first of what follows, delays the second, sends none of the others
        return
    # A clean start ends the session, so it does not wait for the delay.
    victim("restarted", 60, restarted).cut()
    Client(v, restarted, clean=True).close()
    expect(watcher.take().payload, b"restarted", "with a clean start")
    # Without expiry the session ends with the connection, whatever the delay.
    victim("short", 60, expiry=0).cut()
    expect(watcher.take().payload, b"short", "no session, no delay")
    # A take-over that resumes the session cancels a delayed will, one with delay 0 is sent.
    taken = fresh_id()
    victim("cancelled", 60, taken)
    victim("sent", 0, taken, clean=False)
    Client(v, taken, clean=False, SessionExpiryInterval=0)
    expect(watcher.take().payload, b"sent", "of a connection that was taken over")
    producer.send(f"{t}/end", b"sentinel", 1)
    expect(watcher.take().payload, b"sentinel", "nothing more")


def will_and_disconnect(v):
    t = topic(v, "will-disconnect")
    watcher, producer = Client(v), Client(v)
    watcher.subscribe(t, 1)
    for code, sent in ((0x04, True), (0x00, False), (0x80, True), (0x93, True)):
        if BROKER == "mosquitto" and code >= 0x80:  # 2.0.11 sends it for 0x04 only
            continue
        c = Client(v, will=Will(t, b"will of %02x" % code))
        c.close(ReasonCode(PacketTypes.DISCONNECT, identifier=code))
        if sent:
            expect(watcher.take().payload, b"will of %02x" % code, "DISCONNECT")
        producer.send(t, b"sentinel", 1)
        expect(watcher.take().payload, b"sentinel", f"after DISCONNECT {code:02x}")


def receive_maximum(v):
    for limit in (1, 5):
        for qos in (1, 2):
            t = topic(v, "receive-maximum", str(limit), str(qos))
            producer, c = Client(v), Client(v, manual_ack=True, ReceiveMaximum=limit)
            c.subscribe(t, qos)
            marks = Client(v)
            marks.subscribe(t, qos)
            for i in range(30):
                producer.send(t, b"%d" % i, qos)
            marks.payloads(30)
            # Everybody else has everything: what may be in flight is here, or is on its way.
            held = [c.take() for _ in range(limit)]
            # Its own messages do not wait for its quota, and a QoS 0 message does not either.
            c.subscribe(f"{t}/0", 0)
            c.send(f"{t}/0", b"behind", 0)
            expect(c.take().payload, b"behind", f"no more than {limit} in flight, QoS {qos}")
            c.quiet()
            for i in range(30):
                message = held.pop(0) if held else c.take()
                expect(message.payload, b"%d" % i, f"limit {limit}, QoS {qos}, in order")
                c.ack(message)
            producer.send(t, b"sentinel", qos)
            expect(c.take().payload, b"sentinel", "all of them once")
            c.close()


def maximum_packet_size(v):
    t, who = topic(v, "packet-size"), fresh_id()
    producer = Client(v)
    c = Client(v, who, MaximumPacketSize=300, SessionExpiryInterval=60)
    c.subscribe(t, 2)
    others = Client(v)
    others.subscribe(t, 2)
    for qos in (0, 1, 2):
        producer.send(t, b"x" * 1000, qos)
        producer.send(t, b"y" * 100, qos, UserProperty=[("k", "v" * 400)])
        producer.send(t, b"fits", qos)
        expect(c.take().payload, b"fits", f"what does not fit is left out, QoS {qos}")
        expect([len(p) for p in others.payloads(3)], [1000, 100, 4], "others get all")
    c.close()
    producer.send(t, b"x" * 1000, 1)
    producer.send(t, b"fits", 1)
    c = Client(v, who, clean=False, MaximumPacketSize=300)
    expect((c.present, c.take().payload), (True, b"fits"), "of what was queued as well")
    c.close()
    limit = getattr(producer.connack, "MaximumPacketSize", None)
    if limit is not None and limit <= 64 << 20:
        producer.send(t, b"z" * limit, 0)
        expect_closed(producer, (0x95,), "larger than the broker takes")


def topic_alias_to_the_broker(v):
    t = topic(v, "alias")
    c, listener = Client(v), Client(v)
    limit = getattr(c.connack, "TopicAliasMaximum", 0)
    if limit < 2:
        if BROKER == "sabir":
            raise Failed(f"topic alias maximum {limit}")
        return
    listener.subscribe(f"{t}/#", 2)
    c.send(f"{t}/a", b"0", 1, TopicAlias=1)
    c.send(f"{t}/b", b"1", 1, TopicAlias=limit)
    for i in range(2, 200):
        c.send("", b"%d" % i, i % 3, wait=i % 3 > 0, TopicAlias=1 if i % 2 else limit)
    c.send(f"{t}/c", b"200", 1, TopicAlias=1)
    c.send("", b"201", 1, TopicAlias=1)
    got = sorted((listener.take() for _ in range(202)), key=lambda m: int(m.payload))
    wanted = [f"{t}/a", f"{t}/b"] + [f"{t}/a" if i % 2 else f"{t}/b" for i in range(2, 200)] + [f"{t}/c"] * 2
    expect([m.topic for m in got], wanted, "topics")
    if any(hasattr(m.properties, "TopicAlias") for m in got):
        raise Failed("an alias travelled on to a client that allows none")
    for what, name, alias, codes in (
        ("alias 0", f"{t}/a", 0, (0x94, 0x82, 0x81)),
        ("alias above the maximum", f"{t}/a", limit + 1, (0x94,)),
        ("an unknown alias", "", 2, (0x82,)),
        ("no topic and no alias", "", None, (0x82,)),
    ):
        if alias == 65536:
            continue
        bad = Client(v)
        if alias == 0:  # the library refuses to make it
            rest = len(name).to_bytes(2, "big") + name.encode() + b"\3\x23\0\0"
            bad.raw(bytes([0x30, len(rest)]) + rest)
        elif alias is None:
            bad.raw(b"\x30\3\0\0\0")
        else:
            bad.send(name, b"x", 0, TopicAlias=alias)
        expect_closed(bad, codes, what)
    # Another connection knows nothing of it.
    c.close()


def topic_alias_to_the_client(v):
    t = topic(v, "alias-out")
    producer, c = Client(v), Client(v, TopicAliasMaximum=3)
    c.subscribe(f"{t}/#", 1)
    names = [f"{t}/{'long' * 20}/{i % 6}" for i in range(120)]
    for i, name in enumerate(names):
        producer.send(name, b"%d" % i, 1)
    known = {}
    for i, name in enumerate(names):
        message = c.take()
        alias = getattr(message.properties, "TopicAlias", None)
        if alias is not None:
            if not 1 <= alias <= 3:
                raise Failed(f"alias {alias} of a client that allows 3")
            if message.topic:
                known[alias] = message.topic
        expect((message.topic or known.get(alias), message.payload), (name, b"%d" % i), "topic by name or alias")


def request_and_response(v):
    service = topic(v, "service")
    server, asker = Client(v, RequestResponseInformation=0), Client(v, RequestResponseInformation=1)
    expect(getattr(server.connack, "ResponseInformation", None), None, "response information that was not asked for")
    answers = topic(v, "answers", asker.client_id)
    server.subscribe(f"$share/{RUN}/{service}", 1)
    asker.subscribe(answers, 1)
    for i in range(200):
        asker.send(service, b"ask %d" % i, 1, wait=False, ResponseTopic=answers, CorrelationData=b"\0\xff%d" % i)
    for _ in range(200):
        request = server.take()
        server.send(request.properties.ResponseTopic, b"answer to " + request.payload, 1, wait=False,
                    CorrelationData=request.properties.CorrelationData)
    for i in range(200):
        answer = asker.take()
        expect((answer.payload, answer.properties.CorrelationData), (b"answer to ask %d" % i, b"\0\xff%d" % i), "answer")
    if BROKER == "mosquitto":  # 2.0.11 passes the next one on
        return
    bad = Client(v)
    bad.send(service, b"x", 0, ResponseTopic="a/+/b")
    expect_closed(bad, (0x81, 0x82, 0x90), "a response topic with a wildcard")


def reason_codes(v):
    t = topic(v, "codes")
    c = Client(v)
    expect(c.subscribe(f"{t}/x", 2), 2, "SUBACK")
    expect(c.unsubscribe(f"{t}/x", f"{t}/never", f"{t}/x"), [0x00, 0x11, 0x11], "UNSUBACK")
    for qos in (1, 2):
        code = c.send(f"{t}/nobody", b"m", qos)
        if code not in (0x00, 0x10):
            raise Failed(f"{code:02x} for a message without subscribers")


def protocol_errors_have_reasons(v):
    def subscribe(options, identifier=b""):
        rest = b"\0\7" + bytes([len(identifier)]) + identifier + b"\0\1a" + bytes([options])
        return bytes([0x82, len(rest)]) + rest

    def publish(values, first=0x30):
        rest = b"\0\1a" + (b"\0\1" if first & 6 else b"") + bytes([len(values)]) + values
        return bytes([first, len(rest)]) + rest

    cases = [
        ("a client's subscription identifier", publish(b"\x0b\1"), (0x82, 0x81)),
        ("content type twice", publish(b"\3\0\1a\3\0\1b"), (0x82,)),
        ("payload format 2", publish(b"\1\2"), (0x82, 0x81)),
        ("a property of CONNECT", publish(b"\x21\0\5"), (0x81, 0x82)),
        ("a property that does not exist", publish(b"\x7f\0"), (0x81, 0x82)),
        ("properties longer than the packet", b"\x30\4\0\1a\x20", (0x81,)),
        ("a variable integer longer than needed", b"\x30\5\0\1a\x80\0", (0x81,)),
        ("subscription identifier 0", subscribe(1, b"\x0b\0"), (0x82, 0x81)),
        ("subscription identifier twice", subscribe(1, b"\x0b\1\x0b\2"), (0x82, 0x81)),
        ("QoS 3 in SUBSCRIBE", subscribe(3), (0x81, 0x82)),
        ("retain handling 3", subscribe(0x30), (0x82, 0x81)),
        ("reserved options", subscribe(0x40), (0x81, 0x82)),
        ("QoS 3 in PUBLISH", publish(b"", 0x36), (0x81,)),
        ("DUP with QoS 0", publish(b"", 0x38), (0x81, 0x82)),
        ("session expiry after none", b"\xe0\7\0\5\x11\0\0\0\x3c", (0x82,)),
        ("AUTH without a method", b"\xf0\2\x19\0", (0x82, 0x81)),
        ("a wildcard in the topic", b"\x30\6\0\3a/#\0", (0x90, 0x81, 0x82)),
    ]
    complaints = []
    for name, data, codes in cases:
        if BROKER == "mosquitto" and name in MOSQUITTO_OVERLOOKS:
            continue
        c = Client(v)
        c.raw(data)
        try:
            expect_closed(c, codes, name)
        except Failed as problem:
            complaints.append(str(problem))
    if complaints:
        raise Failed("; ".join(complaints))


def receive_maximum_of_the_broker(v):
    c = Client(v)
    limit = getattr(c.connack, "ReceiveMaximum", 65535)
    if limit > 10_000:
        return
    t = b"/".join(topic(v, "overrun").encode().split(b"/"))
    data = b""
    for mid in range(1, limit + 2):  # QoS 2, and never a PUBREL
        rest = len(t).to_bytes(2, "big") + t + mid.to_bytes(2, "big") + b"\0"
        data += bytes([0x34, len(rest)]) + rest
    c.paho.on_publish = None
    c.raw(data)
    expect_closed(c, (0x93,), f"{limit + 1} unfinished messages")


def unknown_authentication_is_refused(v):
    c = Client(v, refused=True, AuthenticationMethod="SCRAM-OF-NOWHERE", AuthenticationData=b"x")
    expect(c.code.value, 0x8C, "CONNACK")
    expect(c.present, False, "session present of a refusal")
    c.closed()


MOSQUITTO_OVERLOOKS = ["a client's subscription identifier", "payload format 2", "DUP with QoS 0"]

CHECKS = [
    properties_travel,
    message_expiry,
    session_expiry,
    connack_says_what_there_is,
    subscription_identifiers,
    no_local,
    retain_handling,
    retain_as_published,
    shared_gets_no_retained,
    shared_backlog_goes_to_who_stays,
    will_delay,
    will_and_disconnect,
    receive_maximum,
    maximum_packet_size,
    topic_alias_to_the_broker,
    topic_alias_to_the_client,
    request_and_response,
    reason_codes,
    protocol_errors_have_reasons,
    receive_maximum_of_the_broker,
    unknown_authentication_is_refused,
]
