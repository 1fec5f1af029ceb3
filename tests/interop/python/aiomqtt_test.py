#!/usr/bin/env python3
"""aiomqtt (PyPI) against a running broker, MQTT 3.1, 3.1.1 and 5, many clients at once.

MQTT_HOST and MQTT_PORT say where. One line per check, then a summary.
"""

import asyncio
import logging
import os
import sys
import time
import traceback

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST = os.environ.get("MQTT_HOST", "127.0.0.1")
PORT = int(os.environ.get("MQTT_PORT", "1883"))
WAIT = float(os.environ.get("INTEROP_WAIT", "30"))
RUN = f"a{os.getpid()}x{int(time.time() * 1000) % 1_000_000}"
VERSIONS = {"3.1": ProtocolVersion.V31, "3.1.1": ProtocolVersion.V311, "5": ProtocolVersion.V5}
# The library warns when many calls wait at once, which is what we are here for.
QUIET = logging.getLogger("aiomqtt-test")
QUIET.setLevel(logging.CRITICAL)


class Failed(Exception):
    """A check that did not hold."""


def expect(got, wanted, what):
    """Fails with both sides shown, cut to a readable length."""
    if got != wanted:
        raise Failed(f"{what}: expected {str(wanted)[:200]!r}, got {str(got)[:200]!r}")


def properties(packet, **values):
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def client(version, **settings):
    """A client for `async with`."""
    return aiomqtt.Client(HOST, PORT, protocol=VERSIONS[version], timeout=WAIT, logger=QUIET, **settings)


def persistent(version, who, clean=False):
    """A client whose session outlives it."""
    if version == "5":
        return client(version, identifier=who, clean_start=clean,
                      properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=600))
    return client(version, identifier=who, clean_session=clean)


async def take(c, count=1):
    """The next messages."""
    got = []

    async def collect():
        async for message in c.messages:
            got.append(message)
            if len(got) == count:
                return

    try:
        await asyncio.wait_for(collect(), WAIT)
    except asyncio.TimeoutError:
        raise Failed(f"{len(got)} of {count} messages within {WAIT} s") from None
    return got


async def in_order_at_every_qos(v):
    async with client(v) as producer, client(v) as consumer:
        for qos in (0, 1, 2):
            t = f"{RUN}/{v}/order/{qos}"
            await consumer.subscribe(t, qos)
            for i in range(500):
                await producer.publish(t, b"%d" % i, qos)
            got = await take(consumer, 500)
            expect([(m.payload, m.qos) for m in got], [(b"%d" % i, qos) for i in range(500)], f"QoS {qos}")


async def payloads_of_every_shape(v):
    bodies = [None, "", "text \U0001f980", b"\x00\xff", bytearray(b"array"), 42, 2.5, os.urandom(1 << 20), "end"]
    wanted = [b"", b"", "text \U0001f980".encode(), b"\x00\xff", b"array", b"42", b"2.5", bodies[7], b"end"]
    async with client(v) as c:
        await c.subscribe(f"{RUN}/{v}/shapes", 1)
        for body in bodies:
            await c.publish(f"{RUN}/{v}/shapes", body, 1)
        for message, body in zip(await take(c, len(bodies)), wanted):
            if message.payload != body:
                raise Failed(f"a payload of {len(body)} bytes came back different, {len(message.payload)} bytes")


async def a_hundred_clients_talk_to_each_other(v):
    count, ready, everybody = 100, 0, asyncio.Event()

    async def talk(number):
        nonlocal ready
        base = f"{RUN}/{v}/crowd"
        async with client(v, identifier=f"{RUN[:15]}-{number}") as c:
            await c.subscribe(f"{base}/{number}/+", 1)
            ready += 1
            if ready == count:
                everybody.set()
            await everybody.wait()
            for i in range(20):
                await c.publish(f"{base}/{(number + 1 + i * 7) % count}/{number}", b"%d" % i, 1)
            return [(int(m.topic.value.rsplit("/")[-1]), int(m.payload)) for m in await take(c, 20)]

    results = await asyncio.gather(*(talk(number) for number in range(count)))
    for number, got in enumerate(results):
        wanted = sorted(((number - 1 - i * 7) % count, i) for i in range(20))
        expect(sorted(got), wanted, f"what client {number} got")


async def competing_consumers(v):
    t, filter = f"{RUN}/{v}/work", f"$share/{RUN}/{RUN}/{v}/work/#"
    done, taken = asyncio.Event(), []

    async def worker(ready, mine):
        async with client(v) as c:
            await c.subscribe(filter, 1)
            ready.set()
            async for message in c.messages:
                mine.append(int(message.payload))
                taken.append(int(message.payload))
                if len(taken) >= 600:
                    done.set()
                await asyncio.sleep(0)

    workers, counts = [], []
    for _ in range(6):
        ready = asyncio.Event()
        counts.append([])
        workers.append(asyncio.create_task(worker(ready, counts[-1])))
        await asyncio.wait_for(ready.wait(), WAIT)
    async with client(v) as producer:
        for i in range(600):
            await producer.publish(f"{t}/{i % 5}", b"%d" % i, 1)
    try:
        await asyncio.wait_for(done.wait(), WAIT)
    except asyncio.TimeoutError:
        raise Failed(f"{len(taken)} of 600 messages within {WAIT} s") from None
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    expect(sorted(taken), list(range(600)), "each message to one worker")
    if not all(counts):
        raise Failed(f"a worker got nothing: {[len(c) for c in counts]}")


async def wills(v):
    t = f"{RUN}/{v}/will"
    async with client(v) as watcher:
        await watcher.subscribe(f"{t}/#", 2)
        for qos in (0, 1, 2):
            try:
                who = f"{RUN[:15]}-w{qos}"
                async with client(v, identifier=who, will=aiomqtt.Will(f"{t}/{qos}", b"cut", qos)) as victim:
                    # A stranger with the same id ends the connection without a DISCONNECT of its own.
                    async with client(v, identifier=who):
                        await take(victim)
                raise Failed("the old connection goes on")
            except aiomqtt.MqttError:
                pass
            (message,) = await take(watcher)
            expect((message.payload, message.qos), (b"cut", qos), "will of one that was taken over")
        async with client(v, will=aiomqtt.Will(f"{t}/never", b"never", 1)):
            pass
        await watcher.publish(f"{t}/end", b"sentinel", 2)
        (message,) = await take(watcher)
        expect(message.payload, b"sentinel", "none after DISCONNECT")


async def retained(v):
    t = f"{RUN}/{v}/retained"
    async with client(v) as producer:
        for name in ("a", "b/c"):
            await producer.publish(f"{t}/{name}", name, 1, retain=True)
        await producer.publish(f"{t}/a", "a again", 1, retain=True)
        async with client(v) as c:
            await c.subscribe(f"{t}/#", 1)
            got = sorted((m.payload, m.retain) for m in await take(c, 2))
            expect(got, [(b"a again", True), (b"b/c", True)], "retained")
        for name in ("a", "b/c"):
            await producer.publish(f"{t}/{name}", b"", 1, retain=True)
        async with client(v) as c:
            await c.subscribe(f"{t}/#", 1)
            await c.publish(f"{t}/z", "sentinel", 1)
            expect((await take(c))[0].payload, b"sentinel", "cleared")


async def sessions(v):
    t = f"{RUN}/{v}/session"
    names = [f"{RUN[:15]}-s{i}" for i in range(10)]
    for who in names:
        async with persistent(v, who) as c:
            await c.subscribe(f"{t}/+", 2)
    async with client(v) as producer:
        await asyncio.gather(*(producer.publish(f"{t}/{i % 3}", b"%d" % i, 1 + i % 2) for i in range(60)))

    async def back(who):
        async with persistent(v, who) as c:
            return sorted(int(m.payload) for m in await take(c, 60))

    for who, got in zip(names, await asyncio.gather(*map(back, names))):
        expect(got, list(range(60)), f"kept for {who}")
    for who in names:
        async with persistent(v, who, clean=True) as c:
            if v == "5":
                await c.subscribe(f"{t}/end", 1)
        async with client(v, identifier=who):
            pass


async def properties_travel(v):
    t = f"{RUN}/{v}/properties"
    values = {"PayloadFormatIndicator": 1, "ContentType": "application/json", "ResponseTopic": f"{t}/answers",
              "CorrelationData": b"\x00\x01\xff", "UserProperty": [("k", "2"), ("k", "1"), ("k", "2"), ("é", "")]}
    async with client(v) as c:
        await c.subscribe(t, options=SubscribeOptions(2), properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=5))
        for qos in (0, 1, 2):
            await c.publish(t, '{"n": 1}', qos, properties=properties(PacketTypes.PUBLISH, **values))
            (message,) = await take(c)
            expect({name: getattr(message.properties, name, None) for name in values}, values, f"QoS {qos}")
            expect(message.properties.SubscriptionIdentifier, [5], "subscription identifier")


async def requests_and_responses(v):
    service = f"{RUN}/{v}/service"

    async def serve(ready):
        async with client(v) as c:
            await c.subscribe(f"$share/{RUN}/{service}", 1)
            ready.set()
            async for request in c.messages:
                await c.publish(request.properties.ResponseTopic, b"answer to " + request.payload, 1, properties=properties(
                    PacketTypes.PUBLISH, CorrelationData=request.properties.CorrelationData))

    async def ask(number):
        answers = f"{RUN}/{v}/answers/{number}"
        async with client(v) as c:
            await c.subscribe(answers, 1)
            for i in range(20):
                await c.publish(service, b"%d" % i, 1, properties=properties(
                    PacketTypes.PUBLISH, ResponseTopic=answers, CorrelationData=b"%d" % i))
            got = {m.properties.CorrelationData: m.payload for m in await take(c, 20)}
            expect(got, {b"%d" % i: b"answer to %d" % i for i in range(20)}, f"answers to {number}")

    servers = []
    for _ in range(3):
        ready = asyncio.Event()
        servers.append(asyncio.create_task(serve(ready)))
        await asyncio.wait_for(ready.wait(), WAIT)
    try:
        await asyncio.gather(*map(ask, range(20)))
    finally:
        for task in servers:
            task.cancel()
        await asyncio.gather(*servers, return_exceptions=True)


CHECKS = [
    in_order_at_every_qos,
    payloads_of_every_shape,
    a_hundred_clients_talk_to_each_other,
    competing_consumers,
    wills,
    retained,
    sessions,
]
CHECKS_OF_5 = [
    properties_travel,
    requests_and_responses,
]


async def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    passed = failed = 0
    for version in VERSIONS:
        for check in CHECKS + (CHECKS_OF_5 if version == "5" else []):
            label = f"aiomqtt {version} {check.__name__}"
            if only not in label:
                continue
            try:
                await check(version)
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
    sys.exit(asyncio.run(main()))
