#!/usr/bin/env python3
"""stomp.py (PyPI) against a running broker, STOMP 1.0, 1.1 and 1.2.

STOMP_HOST and STOMP_PORT say where; BROKER=activemq leaves out the checks in
which we differ from ActiveMQ on purpose. One line per check, then a summary.
"""

import queue
import random
import sys
import time
import traceback

import stomp

from harness import BROKER, CLASSES, HOST, PORT, RUN, WAIT, Client, Failed, expect, name, tag

VERSIONS = ("1.0", "1.1", "1.2")


def connects(v):
    c = Client(v)
    expect(c.connected.get("version"), v, "version header")
    if not c.connected.get("session"):
        raise Failed("no session header")
    c.close()


def two_thousand_in_order(v):
    q = name("queue", "order", tag(v))
    rng = random.Random(7)
    bodies = [f"{i}:".encode() + bytes(rng.randrange(256) for _ in range(rng.randrange(120))) for i in range(2000)]
    producer, consumer = Client(v), Client(v)
    consumer.subscribe(q)
    for body in bodies[:-1]:
        producer.send(q, body)
    producer.send(q, bodies[-1], wait=True)
    expect(consumer.take_bodies(2000), bodies, "bodies in order")
    producer.close()
    consumer.close()


def two_thousand_persistent_with_receipts(v):
    q = name("queue", "receipts", tag(v))
    c = Client(v)
    for i in range(2000):
        c.stomp.send(q, f"m{i}", headers={"persistent": "true", "receipt": f"p{i}"})
    expect([c.receipts.get(timeout=WAIT) for _ in range(2000)], [f"p{i}" for i in range(2000)], "receipts in order")
    c.subscribe(q, ack="client", id="1")
    for i in range(2000):
        message = c.take()
        expect(message.body, b"m%d" % i, "body")
        expect(message.headers.get("persistent"), "true", "persistent header")
        if i % 50 == 49:
            c.ack(message, wait=True)
    c.close()


def bodies_of_every_shape(v):
    q = name("queue", "shapes", tag(v))
    rng = random.Random(11)
    bodies = [
        b"",
        b"x",
        b"0",
        "ünï¢ødé \U0001f980\U0001f4a9 \u4e16\u754c".encode(),
        b"\x00",
        b"a\x00b\x00\x00c",
        bytes(range(256)),
        b"\n\n\n",
        b"\r\n\r\n",
        b"MESSAGE\nfoo:bar\n\nbody\x00",
        rng.randbytes(65535),
        rng.randbytes(65536),
        b"t" * 1_000_000,
        rng.randbytes(1 << 20),
        b"after the big one",
    ]
    producer, consumer = Client(v), Client(v)
    consumer.subscribe(q)
    for body in bodies:
        producer.send(q, body, content__type="application/octet-stream")
    for i, body in enumerate(bodies):
        message = consumer.take()
        if message.body != body:
            raise Failed(f"body {i} of {len(body)} bytes came back different, {len(message.body)} bytes")
        expect(message.headers.get("content-type"), "application/octet-stream", "content-type")
    # Text without content-length ends at the NUL.
    plain = CLASSES[v]([(HOST, PORT)], auto_content_length=False)
    plain.connect(wait=True)
    plain.send(q, "a text without a length \U0001f980")
    expect(consumer.take().body, "a text without a length \U0001f980".encode(), "text body")
    plain.disconnect()
    producer.close()
    consumer.close()


def headers_of_every_shape(v):
    q = name("queue", "headers", tag(v))
    headers = {
        "plain": "value",
        "number": "42",
        "colon": "a:b:c::",
        "long": "h" * 4000,
        "x-dashed.and_dotted": "yes",
    }
    if v != "1.0":
        headers.update({
            "newline": "one\ntwo\n",
            "backslash": "c:\\new\\table\\",
            "literal": "\\n is not a newline",
            "unicode": "snow \u2603 crab \U0001f980",
        })
        if BROKER == "sabir":
            headers.update({"blanks": "  kept  ", "empty": ""})
    if v == "1.2" and BROKER == "sabir":
        headers["return"] = "cr\rlf\r\n"
    c = Client(v)
    c.subscribe(q)
    c.stomp.send(q, "h", headers=dict(headers))
    got = c.take().headers
    for key, value in headers.items():
        expect(got.get(key), value, f"header {key}")
    c.stomp.send(q, "typed", headers={"correlation-id": "c:1", "type": "order", "priority": "7", "expires": "0",
                                      "persistent": "true", "reply-to": "/queue/answers"})
    got = c.take().headers
    for key, value in {"correlation-id": "c:1", "type": "order", "priority": "7", "expires": "0",
                       "persistent": "true", "reply-to": "/queue/answers", "destination": q}.items():
        expect(got.get(key), value, f"header {key}")
    for key in ("message-id", "timestamp", "subscription"):
        if not got.get(key):
            raise Failed(f"no header {key}")
    c.close()


def unacknowledged_come_back(v, mode, acked, wanted, cut):
    """Ten messages; acknowledges those at `acked`, leaves, and expects exactly `wanted` back, in order and marked."""
    q = name("queue", "ack", mode, "cut" if cut else "bye", tag(v))
    c = Client(v)
    for i in range(10):
        c.send(q, f"m{i}", wait=i == 9, persistent="true" if cut else "false")
    c.subscribe(q, ack=mode)
    messages = [c.take() for _ in range(10)]
    expect([m.body for m in messages], [b"m%d" % i for i in range(10)], "first delivery")
    if any(m.headers.get("redelivered") == "true" for m in messages):
        raise Failed("redelivered on the first delivery")
    for i in acked:
        c.ack(messages[i], wait=True)
    if cut:
        c.cut()
    else:
        c.close()
    c = Client(v)
    c.subscribe(q, ack="client")
    back = [c.take() for _ in wanted]
    expect([m.body for m in back], [b"m%d" % i for i in wanted], "what came back")
    expect({m.headers.get("redelivered") for m in back}, {"true"}, "redelivered")
    c.send(q, "sentinel")
    sentinel = c.take()
    expect(sentinel.body, b"sentinel", "nothing else comes back")
    c.ack(sentinel, wait=True)
    c.close()


def client_ack_is_cumulative(v):
    unacknowledged_come_back(v, "client", [5], range(6, 10), cut=False)
    unacknowledged_come_back(v, "client", [2, 4], range(5, 10), cut=True)


def individual_ack_is_individual(v):
    unacknowledged_come_back(v, "client-individual", [1, 4, 9], [0, 2, 3, 5, 6, 7, 8], cut=False)
    unacknowledged_come_back(v, "client-individual", [8, 0], [1, 2, 3, 4, 5, 6, 7, 9], cut=True)


def auto_ack_leaves_nothing(v):
    q = name("queue", "auto", tag(v))
    c = Client(v)
    c.subscribe(q)
    for i in range(10):
        c.send(q, f"m{i}")
    c.take_bodies(10)
    c.close()
    c = Client(v)
    c.subscribe(q)
    c.send(q, "sentinel")
    expect(c.take().body, b"sentinel", "nothing comes back")
    c.close()


def acks_do_not_cross_subscriptions(v):
    q = name("queue", "cross", tag(v))
    a, b = q + ".a", q + ".b"
    c = Client(v)
    c.subscribe(a, ack="client", id="one")
    c.subscribe(b, ack="client", id="two")
    for i in range(5):
        c.send(a, f"a{i}")
        c.send(b, f"b{i}")
    seen = [c.take() for _ in range(10)]
    c.ack([m for m in seen if m.body == b"a4"][0], wait=True)
    c.close()
    c = Client(v)
    c.subscribe(b, ack="client", id="two")
    expect(c.take_bodies(5), [b"b%d" % i for i in range(5)], "the other subscription's messages")
    c.subscribe(a, ack="auto", id="one")
    c.send(a, "sentinel")
    expect(c.take().body, b"sentinel", "the acknowledged ones are gone")
    c.close()


def two_workers_share_a_queue(v):
    q = name("queue", "share", tag(v))
    one, two, producer = Client(v), Client(v), Client(v)
    for worker in (one, two):
        worker.subscribe(q, ack="client-individual", activemq_dot_prefetchSize="10")
    for i in range(400):
        producer.send(q, f"m{i}", wait=i == 399)
    seen = {one: [], two: []}
    deadline = time.monotonic() + WAIT
    while len(seen[one]) + len(seen[two]) < 400 and time.monotonic() < deadline:
        for worker in (one, two):
            try:
                message = worker.messages.get(timeout=0.05)
            except queue.Empty:
                continue
            seen[worker].append(int(message.body[1:]))
            worker.ack(message)
    expect(sorted(seen[one] + seen[two]), list(range(400)), "each message once")
    for worker in (one, two):
        expect(seen[worker], sorted(seen[worker]), "order in each worker")
        if not seen[worker]:
            raise Failed("one worker got nothing")
        worker.close()
    producer.close()


def nack_redelivers(v):
    if v == "1.0" or BROKER != "sabir":
        return
    q = name("queue", "nack", tag(v))
    c = Client(v)
    c.subscribe(q, ack="client-individual")
    for i in range(3):
        c.send(q, f"m{i}")
    messages = [c.take() for _ in range(3)]
    c.nack(messages[1], wait=True)
    again = c.take()
    expect((again.body, again.headers.get("redelivered")), (b"m1", "true"), "after NACK")
    for message in (messages[0], messages[2], again):
        c.ack(message, wait=True)
    c.send(q, "last")
    expect(c.take().body, b"last", "after the acknowledgements")
    c.close()


def receipts_for_every_frame(v):
    q = name("queue", "frames", tag(v))
    c = Client(v)
    c.subscribe(q, ack="client")
    c.send(q, "1", wait=True)
    c.ack(c.take(), wait=True)
    for verb in ("commit", "abort"):
        receipt = c.receipt()
        c.stomp.begin(f"t-{verb}", receipt=receipt)
        c.await_receipt(receipt)
        c.send(q, verb, wait=True, transaction=f"t-{verb}")
        c.end(verb, f"t-{verb}")
    message = c.take()
    expect(message.body, b"commit", "the committed one")
    c.ack(message, wait=True)
    c.unsubscribe()
    c.close()


def transactions_of_sends(v):
    a, b = name("queue", "txa", tag(v)), name("queue", "txb", tag(v))
    c, consumer = Client(v), Client(v)
    consumer.subscribe(a, id="1")
    tx = c.begin("t1")
    for i in range(50):
        c.send(a, f"a{i}", transaction=tx)
        c.send(b, f"b{i}", transaction=tx)
    c.send(a, "outside", wait=True)
    expect(consumer.take().body, b"outside", "nothing before COMMIT")
    c.end("commit", tx)
    expect(consumer.take_bodies(50), [b"a%d" % i for i in range(50)], "after COMMIT")
    consumer.subscribe(b, id="2")
    expect(consumer.take_bodies(50), [b"b%d" % i for i in range(50)], "second queue after COMMIT")

    tx = c.begin("t2")
    for i in range(50):
        c.send(a, f"never{i}", transaction=tx)
    c.end("abort", tx)
    c.send(a, "after abort", wait=True)
    expect(consumer.take().body, b"after abort", "nothing after ABORT")

    tx = c.begin("t3")
    c.send(a, "never", wait=True, transaction=tx)
    c.cut()
    c = Client(v)
    c.send(a, "after the cut", wait=True)
    expect(consumer.take().body, b"after the cut", "nothing after a lost connection")
    c.close()
    consumer.close()


def transactions_of_acks(v):
    q = name("queue", "txack", tag(v))
    c = Client(v)
    for i in range(4):
        c.send(q, f"m{i}", wait=True)
    c.subscribe(q, ack="client-individual")
    messages = [c.take() for _ in range(4)]
    tx = c.begin("t1")
    for message in messages:
        c.ack(message, transaction=tx)
    c.end("abort", tx)
    c.close()
    c = Client(v)
    c.subscribe(q, ack="client-individual")
    messages = [c.take() for _ in range(4)]
    expect([m.body for m in messages], [b"m%d" % i for i in range(4)], "all after ABORT")
    tx = c.begin("t2")
    c.ack(messages[0], transaction=tx)
    c.ack(messages[2], transaction=tx)
    c.send(q, "made of 0 and 2", transaction=tx)
    c.end("commit", tx)
    expect(c.take().body, b"made of 0 and 2", "sent in the same transaction")
    c.close()
    c = Client(v)
    c.subscribe(q, ack="client")
    expect(c.take_bodies(3), [b"m1", b"m3", b"made of 0 and 2"], "left after COMMIT")
    c.close()


def durable_subscription(v):
    topic, who = name("topic", "durable", tag(v)), f"{RUN}-{tag(v)}"
    producer, c = Client(v), Client(v, client_id=who)
    c.subscribe(topic, activemq_dot_subscriptionName=who)
    producer.send(topic, "live", wait=True)
    expect(c.take().body, b"live", "live message")
    c.close()
    for i in range(500):
        producer.send(topic, f"off{i}", wait=i == 499, persistent="true")
    c = Client(v, client_id=who)
    c.subscribe(topic, ack="client", activemq_dot_subscriptionName=who)
    for i in range(500):
        message = c.take()
        expect(message.body, b"off%d" % i, "kept while away")
        if i % 50 == 49:
            c.ack(message, wait=True)
    c.unsubscribe()
    c.unsubscribe(headers={"activemq.subscriptionName": who})
    c.close()
    producer.send(topic, "nobody keeps this", wait=True, persistent="true")
    c = Client(v, client_id=who)
    c.subscribe(topic, activemq_dot_subscriptionName=who)
    producer.send(topic, "sentinel", wait=True, persistent="true")
    expect(c.take().body, b"sentinel", "nothing kept after unsubscribe")
    c.unsubscribe()
    c.unsubscribe(headers={"activemq.subscriptionName": who})
    c.close()
    producer.close()


def request_and_reply(v):
    service = name("queue", "service", tag(v))
    asker, server = Client(v), Client(v)
    server.subscribe(service, ack="client-individual")
    asker.subscribe("/temp-queue/answers")
    for i in range(300):
        asker.send(service, f"ask {i}", reply__to="/temp-queue/answers", correlation__id=f"c{i}")
    for _ in range(300):
        request = server.take()
        server.send(request.headers["reply-to"], b"answer to " + request.body,
                    correlation__id=request.headers["correlation-id"])
        server.ack(request)
    for i in range(300):
        reply = asker.take()
        expect(reply.body, f"answer to ask {i}".encode(), "reply")
        expect(reply.headers["correlation-id"], f"c{i}", "correlation-id")
    asker.close()
    server.close()


def selectors(v):
    q, t = name("queue", "selector", tag(v)), name("topic", "selector", tag(v))
    c = Client(v)
    c.subscribe(q, id="1", selector="colour = 'red' AND size > 5")
    c.subscribe(t, id="2", selector="colour LIKE 'r%' OR size BETWEEN 1 AND 2")
    for i in range(20):
        for destination in (q, t):
            c.send(destination, f"{destination} {i}", colour="red" if i % 2 else "blue", size=str(i))
    got = [c.take().body.decode().split() for _ in range(7 + 11)]
    expect([int(i) for d, i in got if d == q], [7, 9, 11, 13, 15, 17, 19], "queue selector")
    expect([int(i) for d, i in got if d == t], [1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19], "topic selector")
    c.subscribe(q, id="3")
    expect(len(c.take_bodies(13)), 13, "the rest of the queue")
    c.close()


def wildcards(v):
    base = f"{RUN}.wild.{tag(v)}"
    star, all_below, queues = Client(v), Client(v), Client(v)
    star.subscribe(f"/topic/{base}.*.price")
    all_below.subscribe(f"/topic/{base}.>")
    queues.subscribe(f"/queue/{base}.*")
    c = Client(v)
    for level in ("a.price", "a.b.price", "b.price", "b.size", "c"):
        c.send(f"/topic/{base}.{level}", level, wait=True)
    c.send(f"/topic/{base}", "parent", wait=True)
    c.send(f"/topic/{base}.z.price", "sentinel", wait=True)
    expect(star.take_bodies(3), [b"a.price", b"b.price", b"sentinel"], "*")
    expect(all_below.take_bodies(7), [b"a.price", b"a.b.price", b"b.price", b"b.size", b"c", b"parent", b"sentinel"], ">")
    for queue_name in ("q1", "q2", "q3"):
        c.send(f"/queue/{base}.{queue_name}", queue_name, wait=True)
    expect(sorted(queues.take_bodies(3)), [b"q1", b"q2", b"q3"], "wildcard queue consumer")
    for client in (star, all_below, queues, c):
        client.close()


def composite_destinations(v):
    a, b, t = name("queue", "ca", tag(v)), name("queue", "cb", tag(v)), name("topic", "ct", tag(v))
    c, listener = Client(v), Client(v)
    listener.subscribe(t)
    for i in range(100):
        c.send(f"{a},{b},{t}", f"m{i}", wait=i == 99)
    wanted = [b"m%d" % i for i in range(100)]
    expect(listener.take_bodies(100), wanted, "topic")
    c.subscribe(a, id="1")
    expect(c.take_bodies(100), wanted, "first queue")
    c.unsubscribe("1")
    c.subscribe(b, id="1")
    expect(c.take_bodies(100), wanted, "second queue")
    c.unsubscribe("1")
    c.subscribe(f"{a},{b}", id="both")
    c.send(a, "to a", wait=True)
    c.send(b, "to b", wait=True)
    expect(sorted(c.take_bodies(2)), [b"to a", b"to b"], "composite subscription")
    c.close()
    listener.close()


def virtual_topic_groups(v):
    topic = f"VirtualTopic.{RUN}.{tag(v)}"
    one, two, other, plain, c = (Client(v) for _ in range(5))
    for member in (one, two):
        member.subscribe(f"/queue/Consumer.A.{topic}", activemq_dot_prefetchSize="20")
    other.subscribe(f"/queue/Consumer.B.{topic}")
    plain.subscribe(f"/topic/{topic}")
    for i in range(300):
        c.send(f"/topic/{topic}", f"m{i}", wait=i == 299)
    wanted = [b"m%d" % i for i in range(300)]
    expect(other.take_bodies(300), wanted, "group of one")
    expect(plain.take_bodies(300), wanted, "plain subscriber")
    seen = []
    deadline = time.monotonic() + WAIT
    while len(seen) < 300 and time.monotonic() < deadline:
        for member in (one, two):
            try:
                seen.append(member.messages.get(timeout=0.05).body)
            except queue.Empty:
                continue
    expect(sorted(seen), sorted(wanted), "group of two")
    other.close()
    c.send(f"/topic/{topic}", "while B is away", wait=True)
    other = Client(v)
    other.subscribe(f"/queue/Consumer.B.{topic}")
    expect(other.take().body, b"while B is away", "kept for the group")
    for client in (one, two, other, plain, c):
        client.close()


def browse(v):
    if v == "1.0":
        return
    q = name("queue", "browse", tag(v))
    c = Client(v)
    for i in range(20):
        c.send(q, f"m{i}", wait=True)
    c.subscribe(q, id="b", browser="true")
    wanted = [b"m%d" % i for i in range(20)]
    expect(c.take_bodies(20), wanted, "browsed")
    expect(c.take().headers.get("browser"), "end", "end marker")
    c.unsubscribe("b")
    c.subscribe(q, id="1")
    expect(c.take_bodies(20), wanted, "still there")
    c.close()


def heart_beats(v):
    if v == "1.0":
        return
    c = Client(v, heart_beats=(1000, 1000))
    pair = c.connected.get("heart-beat", "0,0").split(",")
    if "0" in pair:
        raise Failed(f"heart-beat refused: {pair}")
    for _ in range(3):
        c.beats.get(timeout=WAIT)
    if not c.gone.empty():
        raise Failed("dropped in spite of its beats")
    q = name("queue", "beats", tag(v))
    c.subscribe(q)
    c.send(q, "still here")
    expect(c.take().body, b"still here", "after the beats")
    c.close()


def errors(v):
    c = Client(v)
    c.stomp.subscribe(name("queue", "bad", tag(v)), id="1", headers={"selector": "this is (not SQL", "receipt": "s"})
    error = c.errors.get(timeout=WAIT)
    if not error.headers.get("message"):
        raise Failed("ERROR without a message header")
    if BROKER == "sabir" and not error.headers.get("code"):
        raise Failed("ERROR without a code header")
    expect(error.headers.get("receipt-id"), "s", "receipt-id of the refused frame")
    try:
        Client(v, accept="9.9")
    except stomp.exception.ConnectFailedException:
        pass
    else:
        raise Failed("version 9.9 was accepted")


CHECKS = [
    connects,
    two_thousand_in_order,
    two_thousand_persistent_with_receipts,
    bodies_of_every_shape,
    headers_of_every_shape,
    auto_ack_leaves_nothing,
    client_ack_is_cumulative,
    individual_ack_is_individual,
    acks_do_not_cross_subscriptions,
    two_workers_share_a_queue,
    nack_redelivers,
    receipts_for_every_frame,
    transactions_of_sends,
    transactions_of_acks,
    durable_subscription,
    request_and_reply,
    selectors,
    wildcards,
    composite_destinations,
    virtual_topic_groups,
    browse,
    heart_beats,
    errors,
]


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    passed = failed = 0
    for version in VERSIONS:
        for check in CHECKS:
            label = f"stomp.py {version} {check.__name__}"
            if only not in label:
                continue
            try:
                check(version)
            except Exception as problem:  # whatever the library throws is a failed check
                failed += 1
                print(f"FAIL {label}: {problem or type(problem).__name__}", flush=True)
                if not isinstance(problem, Failed):
                    traceback.print_exc()
            else:
                passed += 1
                print(f"ok   {label}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
