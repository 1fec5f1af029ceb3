"""Who loads the broker in the crash test: producers, consumers, a transformer.

Each is a thread that connects, works until the connection breaks or it leaves of
its own will, and connects again. What it did goes to a history file, one JSON
list per event: [kind, generation of the broker, number of the event, ...].

  S key            about to be sent            R key            its receipt came
  B tx keys        transaction about to begin  C tx             about to COMMIT
  X tx             about to ABORT              Y tx             receipt of the COMMIT
  M key mark       received                    A keys           about to be acknowledged
  K keys           receipt of that came        E text           ERROR frame, or a damaged body
  N                a new subscription begins
"""

import collections
import hashlib
import itertools
import json
import random
import threading
import time

from crash_wire import BrokerError, Gone, Wire, frame

WINDOW = 100
LAG = 3000


def payload(key):
    """The body that belongs to a key: its length and its bytes follow from it."""
    digest = hashlib.sha256(key.encode()).digest()
    size = digest[0] * 2 if digest[1] else 20_000
    return key.encode() + b"|" + (digest * (size // 32 + 1))[:size]


def key_of(body):
    """The key of a body, or None when the body is damaged."""
    name, bar, _ = body.partition(b"|")
    try:
        key = name.decode()
    except UnicodeDecodeError:
        return None
    return key if bar and payload(key) == body else None


class World:
    """What the actors share."""

    def __init__(self, broker, folder, seed):
        self.broker = broker
        self.folder = folder
        self.seed = seed
        self.generation = 0
        self.clock = itertools.count()
        self.sending = threading.Event()
        self.running = threading.Event()
        self.seen = {}
        self.receipts = 0
        self.lock = threading.Lock()

    def saw(self, key):
        """Remembers how far consumers are behind each producer."""
        producer, number = key.split(":")[:2]
        self.seen[producer] = int(number)

    def behind(self, producer, number):
        """True when consumers are so far behind that the producer should wait."""
        return number - self.seen.get(producer, 0) > LAG

    def receipted(self, count):
        with self.lock:
            self.receipts += count


class Actor(threading.Thread):
    """A thread with a history and a connection that comes and goes."""

    def __init__(self, world, name, client_id=None):
        super().__init__(name=name, daemon=True)
        self.world = world
        self.random = random.Random(f"{world.seed} {name}")
        self.client_id = client_id
        self.wire = None
        self.generation = 0
        self.history = open(world.folder / f"{name}.jsonl", "w", encoding="ascii")

    def note(self, kind, *facts):
        self.history.write(json.dumps([kind, self.generation, next(self.world.clock), *facts]) + "\n")

    def connect(self):
        """Connects to the broker; None when the test is over."""
        while self.world.running.is_set():
            generation = self.world.generation
            try:
                wire = Wire(self.world.broker.stomp_port, self.client_id)
            except (Gone, BrokerError):
                time.sleep(0.02)
                continue
            # The number grows after a broker died and before its successor starts, so an unchanged one names
            # the process at the other end.
            if generation == self.world.generation:
                self.generation = generation
                return wire
            wire.close()
        return None

    def active(self):
        return self.world.running.is_set()

    def run(self):
        while self.active():
            wire = self.connect()
            if wire is None:
                break
            try:
                self.work(wire)
            except Gone:
                pass
            except BrokerError as problem:
                self.note("E", f"ERROR {problem}")
            finally:
                if self.active():
                    wire.close()
                else:
                    self.wire = wire
        self.history.close()

    def leave(self):
        """Closes what `run` left open when the test was over, and returns when the broker knows.

        Not before every actor has stopped: what one consumer gives back another would get after newer ones.
        """
        if self.wire is None:
            return
        try:
            self.wire.receipt("DISCONNECT", {}, name="bye")
        except (Gone, BrokerError):
            pass
        self.wire.close()

    def work(self, wire):
        raise NotImplementedError


class Producer(Actor):
    """Persistent sends with receipts, several in flight. Nothing is ever sent twice."""

    def __init__(self, world, name, destination):
        super().__init__(world, name)
        self.destination = destination
        self.number = 0

    def active(self):
        return self.world.sending.is_set() and self.world.running.is_set()

    def work(self, wire):
        flying = collections.deque()
        while self.active() or flying:
            if self.active() and not self.world.behind(self.name, self.number):
                frames = []
                for _ in range(self.random.randrange(1, 24)):
                    self.number += 1
                    key = f"{self.name}:{self.number}"
                    self.note("S", key)
                    headers = {"destination": self.destination, "persistent": "true", "receipt": key}
                    frames.append(frame("SEND", headers, payload(key)))
                    flying.append(key)
                wire.send(b"".join(frames))
            allowed = self.random.randrange(0, 64) if self.active() else 0
            if not flying:
                time.sleep(0.01)
            while len(flying) > allowed:
                for command, headers, _ in wire.batch(30) or [(None, None, None)]:
                    if command is None:
                        self.note("E", "no receipt within 30 s")
                        return
                    key = flying.popleft()
                    if headers["receipt-id"] != key:
                        self.note("E", f"receipt {headers['receipt-id']} came before {key}")
                        return
                    self.note("R", key)
                    self.world.receipted(1)


class Transactor(Actor):
    """Transactions of sends to two queues: committed, aborted or left open."""

    def __init__(self, world, name, destinations):
        super().__init__(world, name)
        self.destinations = destinations
        self.number = 0

    def active(self):
        return self.world.sending.is_set() and self.world.running.is_set()

    def work(self, wire):
        while self.active():
            if self.world.behind(self.name, self.number):
                time.sleep(0.01)
                continue
            self.number += 1
            tx = f"{self.name}:{self.number}"
            keys = [f"{tx}:{i}" for i in range(self.random.randrange(1, 9))]
            self.note("B", tx, keys)
            frames = [frame("BEGIN", {"transaction": tx})]
            for key in keys:
                for destination in self.destinations:
                    headers = {"destination": destination, "persistent": "true", "transaction": tx}
                    frames.append(frame("SEND", headers, payload(key)))
            fate = self.random.random()
            if fate < 0.1:
                self.note("X", tx)
                frames.append(frame("ABORT", {"transaction": tx, "receipt": tx}))
            elif fate < 0.95:
                self.note("C", tx)
                frames.append(frame("COMMIT", {"transaction": tx, "receipt": tx}))
            wire.send(b"".join(frames))
            if fate >= 0.95:
                return  # leaves it open: losing the connection aborts it
            command, headers, _ = wire.read()
            if (command, headers.get("receipt-id")) != ("RECEIPT", tx):
                self.note("E", f"expected the receipt {tx}, got {command}")
                return
            if fate >= 0.1:
                self.note("Y", tx)
                self.world.receipted(1)


class Consumer(Actor):
    """Acknowledges what it gets, singly or cumulatively, with or without receipts, and sometimes not at all."""

    def __init__(self, world, name, destination, mode, receipts, leaves=True, subscription=None):
        super().__init__(world, name, client_id=subscription)
        self.destination = destination
        self.mode = mode
        self.receipts = receipts
        self.leaves = leaves
        self.subscription = subscription
        self.subscribed = threading.Event()

    def subscribe(self, wire):
        headers = {"destination": self.destination, "id": "1", "ack": self.mode, "activemq.prefetchSize": WINDOW}
        if self.subscription:
            headers["activemq.subscriptionName"] = self.subscription
        self.note("N")
        first = wire.receipt("SUBSCRIBE", headers, name="subscribed")
        self.subscribed.set()
        return first

    def work(self, wire):
        first = self.subscribe(wire)
        waiting = {}
        numbers = itertools.count()
        pending = []
        skips = 0
        leave_after = self.random.randrange(300, 6000)
        taken = 0
        while self.active():
            frames = first or wire.batch(0.2)
            first = None
            out = []
            for command, headers, body in frames:
                if command == "RECEIPT":
                    keys = waiting.pop(headers["receipt-id"], None)
                    if keys is not None:
                        self.note("K", keys)
                    continue
                key = key_of(body)
                if key is None:
                    self.note("E", f"a damaged body, {len(body)} bytes: {body[:60]!r}")
                    continue
                taken += 1
                self.note("M", key, headers.get("redelivered") == "true")
                self.world.saw(key)
                if self.mode == "client-individual":
                    if skips < WINDOW // 4 and self.random.random() < 0.005:
                        skips += 1
                        continue
                    keys = [key]
                else:
                    pending.append(key)
                    if len(pending) < WINDOW // 2 and self.random.random() < 0.9:
                        continue
                    keys, pending = pending, []
                self.note("A", keys)
                ack = {"id": headers["ack"]}
                if self.receipts:
                    ack["receipt"] = f"a{next(numbers)}"
                    waiting[ack["receipt"]] = keys
                out.append(frame("ACK", ack))
            if out:
                wire.send(b"".join(out))
            if self.leaves and taken > leave_after:
                if self.random.random() < 0.5:
                    wire.receipt("DISCONNECT", {}, name="bye")
                return  # with or without a word, what is not acknowledged goes back


class Transformer(Actor):
    """Takes from one queue and puts into another, both in one transaction: exactly once, whatever happens."""

    def __init__(self, world, name, source, target):
        super().__init__(world, name)
        self.source = source
        self.target = target
        self.number = 0

    def work(self, wire):
        headers = {"destination": self.source, "id": "1", "ack": "client-individual", "activemq.prefetchSize": WINDOW}
        self.note("N")
        held = self.arrived(wire.receipt("SUBSCRIBE", headers, name="subscribed"))
        while self.active():
            held = held or self.arrived(wire.batch(0.2))
            if not held:
                continue
            self.number += 1
            tx = f"{self.name}:{self.number}"
            frames = [frame("BEGIN", {"transaction": tx})]
            for key, ack in held:
                frames.append(frame("ACK", {"id": ack, "transaction": tx}))
                made = {"destination": self.target, "persistent": "true", "transaction": tx}
                frames.append(frame("SEND", made, payload(f"{key}:of:{tx}")))
            commit = self.random.random() > 0.1
            keys = [key for key, _ in held]
            self.note("A" if commit else "X", keys if commit else tx)
            frames.append(frame("COMMIT" if commit else "ABORT", {"transaction": tx, "receipt": tx}))
            wire.send(b"".join(frames))
            more = []
            while True:
                got = wire.read()
                if got[0] == "RECEIPT" and got[1]["receipt-id"] == tx:
                    break
                more.append(got)
            if commit:
                self.note("K", keys)
                held = []
            # An aborted acknowledgement leaves the messages with us.
            held += self.arrived(more)

    def arrived(self, frames):
        """Notes what came; yields keys with the names for their acknowledgement."""
        got = []
        for _, headers, body in frames:
            key = key_of(body)
            if key is None:
                self.note("E", f"a damaged body, {len(body)} bytes: {body[:60]!r}")
                continue
            self.note("M", key, headers.get("redelivered") == "true")
            self.world.saw(key)
            got.append((key, headers["ack"]))
        return got


class Drainer(Consumer):
    """Empties a queue up to a mark, acknowledging each message with a receipt."""

    def __init__(self, world, name, destination, mark, subscription=None):
        super().__init__(world, name, destination, "client-individual", True, subscription=subscription)
        self.mark = mark
        self.before_mark = 0

    def drain(self):
        """Runs in the caller's thread; True when the mark was reached."""
        wire = self.connect()
        try:
            frames = self.subscribe(wire)
            flying = {}
            marked = False
            while flying or not marked:
                frames = frames or wire.batch(30)
                if not frames:
                    return False
                out = []
                for command, headers, body in frames:
                    if command == "RECEIPT":
                        key = flying.pop(headers["receipt-id"], None)
                        if key not in (None, self.mark):
                            self.note("K", [key])
                        continue
                    key = key_of(body)
                    if key is None:
                        self.note("E", f"a damaged body, {len(body)} bytes: {body[:60]!r}")
                        continue
                    if key == self.mark:
                        marked = True
                    elif not key.startswith("mark"):
                        self.before_mark += 1
                        self.note("M", key, headers.get("redelivered") == "true")
                        self.note("A", [key])
                    receipt = f"d{len(flying)}-{headers['ack']}"
                    flying[receipt] = key
                    out.append(frame("ACK", {"id": headers["ack"], "receipt": receipt}))
                frames = None
                if out:
                    wire.send(b"".join(out))
            wire.receipt("DISCONNECT", {}, name="bye")
            return True
        except (Gone, BrokerError) as problem:
            self.note("E", f"while draining: {problem!r}")
            return False
        finally:
            wire.close()
            self.history.close()
