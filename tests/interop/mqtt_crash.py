#!/usr/bin/env python3
"""mqtt_crash.py [KILLS [SEED]]: kills the broker again and again under MQTT load, then counts.

paho-mqtt clients (MQTT 3.1.1 and 5) with sessions that outlive their connections publish and
subscribe with QoS 1 and 2 while the broker is killed with `kill -9` at random moments, sometimes
while it recovers, and connections are cut in between. The clients keep their half of the session:
they send again what is not acknowledged. At the end: nothing acknowledged is lost, QoS 2 came
exactly once and in order, QoS 1 in order but for repeats, sessions and the last retained value are
still there, and wills were sent.

SABIR_BIN names the broker; its log stays in target/interop/crash after a failure.
"""

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import MessageState
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker import ROOT, Broker, BrokerDied
from crash_actors import key_of, payload

FOLDER = ROOT / "target" / "interop" / "crash" / f"mqtt-{os.getpid()}"
WINDOW = 16
LAG = 2000
FLOW_SECONDS = 60
VERSIONS = {"v4": paho.MQTTv311, "v5": paho.MQTTv5}


class World:
    """What the clients share."""

    def __init__(self, broker):
        self.broker = broker
        self.sending = False
        self.acknowledged = 0
        self.complaints = []
        self.seen = {}
        self.changed = threading.Condition()

    def complain(self, text):
        with self.changed:
            self.complaints.append(text)

    def wait_for(self, condition, what, seconds=FLOW_SECONDS):
        """Waits for what a client will tell about; a broker that is up and serves nobody is a failure."""
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise BrokerDied(f"{what}: not within {seconds} s:\n{self.broker.log_tail()}")


class Client(paho.Client):
    """paho-mqtt 2.2.0 forgets, when a second attempt to connect fails, that PUBREL was sent, and would publish
    the message again as a new one (MQTT-4.3.3-6). Then nobody could deliver it exactly once."""

    def _messages_reconnect_reset_out(self):
        for message in self._out_messages.values():
            if message.state == MessageState.MQTT_MS_RESEND_PUBREL:
                message.state = MessageState.MQTT_MS_WAIT_FOR_PUBCOMP
        super()._messages_reconnect_reset_out()


class Member:
    """A client with a session that outlives its connection; it connects again by itself."""

    def __init__(self, world, name, version):
        self.world, self.name, self.version = world, name, version
        self.connected = False
        self.has_session = False  # the broker acknowledged something that only a session can hold
        self.presents = 0
        options = {} if version == "v5" else {"clean_session": False}
        self.paho = Client(paho.CallbackAPIVersion.VERSION2, name, protocol=VERSIONS[version], **options)
        self.paho.reconnect_delay_set(0.02, 0.1)
        self.paho.on_connect = self.on_connect
        self.paho.on_disconnect = self.on_disconnect

    def start(self):
        settings = {}
        if self.version == "v5":
            expiry = Properties(PacketTypes.CONNECT)
            expiry.SessionExpiryInterval = 86400
            settings = {"clean_start": False, "properties": expiry}
        self.paho.connect_async("127.0.0.1", self.world.broker.mqtt_port, 60, **settings)
        self.paho.loop_start()

    def on_connect(self, _client, _userdata, flags, code, _properties):
        if code.value != 0:
            self.world.complain(f"{self.name}: CONNACK {code}")
            return
        if self.has_session and not flags.session_present:
            self.world.complain(f"{self.name}: its session is gone")
        with self.world.changed:
            self.connected = True
            self.presents += flags.session_present
            self.arrived(flags.session_present)
            self.world.changed.notify_all()

    def on_disconnect(self, *_):
        with self.world.changed:
            self.connected = False
            self.world.changed.notify_all()

    def arrived(self, present):
        """Connected."""

    def cut(self):
        """Drops the socket without a word; the library comes back."""
        sock = self.paho.socket()
        try:
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def stop(self):
        self.paho.disconnect()
        self.paho.loop_stop()


class Publisher(Member):
    """Publishes as fast as it is acknowledged. All of it happens in the library's thread, so that nothing
    new can come between what it sends again after a connection was lost."""

    def __init__(self, world, name, version, topic, qos, retain=False):
        super().__init__(world, name, version)
        self.topic, self.qos, self.retain = topic, qos, retain
        self.number = 0
        self.flying = {}
        self.again = set()
        self.acknowledged = []
        self.paho.on_publish = self.on_publish

    def arrived(self, present):
        self.again = set(self.flying)
        self.refill()

    def on_publish(self, _client, _userdata, mid, code, _properties):
        # 0x92 answers a PUBREL that is sent again when its PUBCOMP was lost: no error then.
        if code.value >= 0x80 and not (self.qos == 2 and code.value == 0x92):
            self.world.complain(f"{self.name}: refused with {code}")
        with self.world.changed:
            self.has_session = True
            self.acknowledged.append(self.flying.pop(mid))
            self.again.discard(mid)
            self.world.acknowledged += 1
            self.refill()
            self.world.changed.notify_all()

    def refill(self):
        behind = self.number - self.world.seen.get(self.name, 0) > LAG
        while self.world.sending and not self.again and len(self.flying) < WINDOW and not (behind and self.flying):
            self.number += 1
            info = self.paho.publish(self.topic, payload(f"{self.name}:{self.number}"), self.qos, self.retain)
            self.flying[info.mid] = self.number


class Subscriber(Member):
    """Notes what it gets."""

    def __init__(self, world, name, version, filter, qos):
        super().__init__(world, name, version)
        self.filter, self.qos = filter, qos
        self.received = {}  # numbers by publisher, as they came
        self.repeats = 0
        self.paho.on_message = self.on_message
        self.paho.on_subscribe = self.on_subscribe

    def arrived(self, present):
        if not self.has_session:
            self.paho.subscribe(self.filter, self.qos)

    def on_subscribe(self, _client, _userdata, _mid, codes, _properties):
        if codes[0].value != self.qos:
            self.world.complain(f"{self.name}: granted {codes[0]}")
        with self.world.changed:
            self.has_session = True
            self.world.changed.notify_all()

    def on_message(self, _client, _userdata, message):
        key = key_of(message.payload)
        if key is None:
            self.world.complain(f"{self.name}: a damaged payload of {len(message.payload)} bytes on {message.topic}")
            return
        name, number = key.split(":")
        with self.world.changed:
            self.received.setdefault(name, []).append(int(number))
            self.repeats += message.dup
            if not self.name.startswith("away"):
                self.world.seen[name] = int(number)
            self.world.changed.notify_all()


class CrashTest:
    """One run: load, kills, the drain, the verdict."""

    def __init__(self, kills, seed, broker):
        self.kills, self.random, self.broker = kills, random.Random(seed), broker
        self.world = World(broker)
        self.deaths = 0
        self.publishers = [Publisher(self.world, f"p{qos}{version}{n}", version, f"crash/{qos}/{version}/{n}", qos)
                           for qos in (1, 2) for version in VERSIONS for n in (1, 2)]
        self.keepers = [Publisher(self.world, f"keep{version}", version, f"crash/kept/{version}", 1, retain=True)
                        for version in VERSIONS]
        self.subscribers = [
            Subscriber(self.world, "one-v4", "v4", "crash/1/#", 1),
            Subscriber(self.world, "one-v5", "v5", "crash/1/+/+", 1),
            Subscriber(self.world, "two-v4", "v4", "crash/2/#", 2),
            Subscriber(self.world, "two-v5", "v5", "crash/2/+/+", 2),
            Subscriber(self.world, "all-v5", "v5", "crash/+/v4/#", 2),
            Subscriber(self.world, "low-v4", "v4", "crash/2/v5/1", 1),
        ]
        # These are there at the beginning and at the end only: the broker keeps everything for them.
        self.absent = [Subscriber(self.world, f"away-{version}", version, "crash/+/+/1", 2) for version in VERSIONS]
        self.wills = Subscriber(self.world, "wills", "v5", "crash/will/+", 1)

    def matches(self, subscriber, publisher):
        return paho.topic_matches_sub(subscriber.filter, publisher.topic)

    def strangers(self, name, **options):
        """A client without a session."""
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5, reconnect_on_failure=False)
        ready = threading.Event()
        client.on_connect = lambda *_: ready.set()
        for key, value in options.items():
            setattr(client, key, value)
        return client, ready

    def will(self, number):
        """A client whose connection breaks: its will must reach the one that waits for wills."""
        client, ready = self.strangers(f"victim{number}")
        client.will_set(f"crash/will/{number}", payload(f"victim:{number}"), 1)
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        if not ready.wait(FLOW_SECONDS):
            raise BrokerDied("a client with a will gets no CONNACK")
        client.socket().shutdown(socket.SHUT_RDWR)
        client.loop_stop()
        self.world.wait_for(lambda: number in self.wills.received.get("victim", []), f"will {number}")

    def retained(self, keeper, low):
        """Reads the retained value of a keeper; complains when it is older than what was acknowledged."""
        got = []
        client, _ = self.strangers("reader")

        def on_message(_client, _userdata, message):
            with self.world.changed:
                got.append(message)
                self.world.changed.notify_all()

        client.on_connect = lambda *_: client.subscribe(keeper.topic, 1)
        client.on_message = on_message
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        try:
            self.world.wait_for(lambda: any(m.retain for m in got), f"the retained value of {keeper.name}")
        finally:
            client.disconnect()
            client.loop_stop()
        value = next(m for m in got if m.retain).payload
        number = int((key_of(value) or ":-1").split(":")[1])
        if not low <= number <= keeper.number:
            self.world.complain(f"{keeper.name}: retained {number}, acknowledged {low}, sent {keeper.number}")
        return number

    def die_and_return(self):
        """kill -9 and a new start, sometimes with a second kill in the middle of it."""
        self.broker.kill()
        self.deaths += 1
        low = {keeper: max(keeper.acknowledged, default=0) for keeper in self.keepers}
        if self.random.random() < 0.25:
            self.broker.spawn()
            time.sleep(self.random.uniform(0, 0.2))
            self.broker.kill()
            self.deaths += 1
        self.broker.start()
        for keeper, number in low.items():
            if number:
                self.retained(keeper, number)

    def flow(self, count):
        wanted = self.world.acknowledged + count
        self.world.wait_for(lambda: self.world.acknowledged >= wanted, f"{count} acknowledgements")

    def send(self, yes):
        """Lets the publishers go on, or waits until all they sent is acknowledged."""
        everybody = self.publishers + self.keepers
        self.world.sending = yes
        if yes:
            for publisher in everybody:
                publisher.cut()  # it goes on when it is back: publishing is the library's thread's own business
        else:
            self.world.wait_for(lambda: not any(p.flying for p in everybody), "the last acknowledgements")

    def drain(self):
        def complete():
            return all(set(p.acknowledged) <= set(s.received.get(p.name, []))
                       for s in self.subscribers + self.absent for p in self.publishers if self.matches(s, p))
        try:
            self.world.wait_for(complete, "everything")
        except BrokerDied:
            pass  # the verdict says what is missing

    def run(self):
        self.broker.start()
        for member in self.subscribers + self.absent + [self.wills]:
            member.start()
        self.world.wait_for(lambda: all(s.has_session for s in self.subscribers + self.absent + [self.wills]), "SUBACKs")
        for member in self.absent:
            member.stop()
        self.world.sending = True
        for publisher in self.publishers + self.keepers:
            publisher.start()
        for number in range(1, self.kills + 1):
            self.flow(self.random.randrange(1, 1500))
            self.will(number)
            for member in self.random.sample(self.publishers + self.subscribers, 3):
                member.cut()
            time.sleep(self.random.uniform(0, 0.3))
            self.die_and_return()
            print(f"     kill {number}/{self.kills}, {self.world.acknowledged} acknowledgements so far", flush=True)
        self.flow(1000)
        self.send(False)
        for member in self.absent:
            member.start()
        self.drain()
        self.die_and_return()
        # What was taken must not come again, and the sessions go on.
        self.send(True)
        self.flow(500)
        self.send(False)
        self.drain()
        for keeper in self.keepers:
            newest = max(keeper.acknowledged)
            if self.retained(keeper, newest) != newest:
                self.world.complain(f"{keeper.name}: the last value is not the retained one")
        for member in self.publishers + self.keepers + self.subscribers + self.absent + [self.wills]:
            member.stop()
        status = self.broker.stop()
        yield "stops cleanly", "" if status == 0 else f"status {status}"
        yield from self.verdicts()

    def verdicts(self):
        lost, invented, twice, disorder = [], [], [], []
        for subscriber in self.subscribers + self.absent:
            for publisher in self.publishers:
                if not self.matches(subscriber, publisher):
                    continue
                pair = f"{publisher.name} to {subscriber.name}"
                got = subscriber.received.get(publisher.name, [])
                first = list(dict.fromkeys(got))
                if missing := sorted(set(publisher.acknowledged) - set(got)):
                    lost.append(f"{pair}: {len(missing)} of {len(publisher.acknowledged)}, first {missing[:5]}")
                if strange := [n for n in first if n > publisher.number]:
                    invented.append(f"{pair}: {strange[:5]}")
                if first != sorted(first):
                    at = next(i for i in range(1, len(first)) if first[i] < first[i - 1])
                    disorder.append(f"{pair}: {first[max(0, at - 3):at + 3]}")
                if min(publisher.qos, subscriber.qos) == 2 and len(got) != len(first):
                    again = sorted(n for n in first if got.count(n) > 1)
                    twice.append(f"{pair}: {len(again)}, first {again[:5]}")
        yield "no acknowledged message is lost", "; ".join(lost)
        yield "nothing that was not sent", "; ".join(invented)
        yield "QoS 2 exactly once", "; ".join(twice)
        yield "in order, each for the first time", "; ".join(disorder)
        wills = self.wills.received.get("victim", [])
        yield "every will once", "" if sorted(set(wills)) == list(range(1, self.kills + 1)) else f"{sorted(wills)}"
        yield "sessions, payloads, answers and retained values", "; ".join(self.world.complaints[:10])


def judge(test):
    """Runs a test; how many verdicts were good and how many were bad."""
    passed = failed = 0
    try:
        for name, complaint in test.run():
            passed, failed = passed + (not complaint), failed + bool(complaint)
            print(f"FAIL mqtt crash {name}: {complaint}" if complaint else f"ok   mqtt crash {name}", flush=True)
    except (BrokerDied, OSError) as problem:
        failed += 1
        complaints = "; ".join(test.world.complaints[:5])
        print(f"FAIL mqtt crash: {problem!s} {complaints}", flush=True)
    return passed, failed


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the broker ends with us
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    print(f"MQTT crash test: {kills} kills, seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sabir-mqtt-crash-") as data_dir:
        test = CrashTest(kills, seed, Broker(os.path.join(data_dir, "data"), FOLDER / "broker.log"))
        try:
            passed, failed = judge(test)
        finally:
            if test.broker.process and test.broker.process.poll() is None:
                test.broker.kill()
    members = test.subscribers + test.absent
    taken = sum(len(numbers) for s in members for numbers in s.received.values())
    print(f"{test.deaths} kills, {test.world.acknowledged} acknowledgements, {taken} messages taken, "
          f"{sum(s.repeats for s in members)} of them marked as repeats, {time.monotonic() - began:.0f} s, seed {seed}")
    if failed:
        print(f"the broker's log: {FOLDER}")
    else:
        shutil.rmtree(FOLDER)
    print(f"{passed} passed, {failed} failed")
    # The library's threads may still try to reach a broker that is no more.
    sys.stdout.flush()
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
