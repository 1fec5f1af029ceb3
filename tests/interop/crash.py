#!/usr/bin/env python3
"""crash.py [KILLS [SEED]]: kills the broker again and again under load, then counts.

Producers with receipts and consumers with acknowledgements work without pause while
the broker is killed with `kill -9` at random moments, sometimes while it recovers,
and started again on the same data. At the end every queue is emptied and what the
clients wrote down is compared: no receipted message is lost, none whose
acknowledgement was receipted comes back, each producer's order holds, transactions
and composite sends are all or nothing.

SABIR_BIN names the broker; after a failure the histories stay in target/interop/crash.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from broker import ROOT, Broker, BrokerDied
from crash_actors import Consumer, Drainer, Producer, Transactor, Transformer, World, payload
from crash_verdict import Queue, made_by, read, verdicts
from crash_wire import Gone, Wire

FOLDER = ROOT / "target" / "interop" / "crash" / str(os.getpid())
FLOW_SECONDS = 60


def cast(world):
    """Producers, consumers, the queues they meet at, and how each queue is emptied in the end."""
    consumers = [
        Consumer(world, "work-1", "/queue/crash.work", "client-individual", receipts=True),
        Consumer(world, "work-2", "/queue/crash.work", "client-individual", receipts=False),
        Consumer(world, "many-1", "/queue/crash.many", "client", receipts=True),
        Consumer(world, "quiet-1", "/queue/crash.quiet", "client", receipts=False),
        Consumer(world, "durable-1", "/topic/crash.durable", "client", receipts=True, subscription="crash-durable"),
        Consumer(world, "ga-1", "/queue/Consumer.A.VirtualTopic.crash", "client-individual", receipts=True, leaves=False),
        Consumer(world, "ga-2", "/queue/Consumer.A.VirtualTopic.crash", "client-individual", receipts=True, leaves=False),
        Consumer(world, "gb-1", "/queue/Consumer.B.VirtualTopic.crash", "client", receipts=True),
        Consumer(world, "left-1", "/queue/crash.left", "client", receipts=True),
        Consumer(world, "right-1", "/queue/crash.right", "client-individual", receipts=True),
        Consumer(world, "both1-1", "/queue/crash.both1", "client-individual", receipts=True),
        Consumer(world, "both2-1", "/queue/crash.both2", "client", receipts=True),
        Consumer(world, "out-1", "/queue/crash.out", "client-individual", receipts=True),
    ]
    transformer = Transformer(world, "turn", "/queue/crash.in", "/queue/crash.out")
    producers = [
        Producer(world, "pwork1", "/queue/crash.work"),
        Producer(world, "pwork2", "/queue/crash.work"),
        Producer(world, "pmany1", "/queue/crash.many"),
        Producer(world, "pmany2", "/queue/crash.many"),
        Producer(world, "pquiet", "/queue/crash.quiet"),
        Producer(world, "pdurable", "/topic/crash.durable"),
        Producer(world, "pvirtual", "/topic/VirtualTopic.crash"),
        Producer(world, "pboth", "/queue/crash.both1,/queue/crash.both2"),
        Producer(world, "pin", "/queue/crash.in"),
        Transactor(world, "ptx1", ["/queue/crash.left", "/queue/crash.right"]),
        Transactor(world, "ptx2", ["/queue/crash.right", "/queue/crash.left"]),
    ]
    queues = [
        # Two consumers that come and go hand messages back to each other: no order to promise there.
        Queue("work", ["pwork1", "pwork2"], ["work-1", "work-2"], ordered=False),
        Queue("many", ["pmany1", "pmany2"], ["many-1"]),
        Queue("quiet", ["pquiet"], ["quiet-1"]),
        Queue("durable", ["pdurable"], ["durable-1"]),
        Queue("group A", ["pvirtual"], ["ga-1", "ga-2"]),
        Queue("group B", ["pvirtual"], ["gb-1"]),
        Queue("left", ["ptx1", "ptx2"], ["left-1"]),
        Queue("right", ["ptx1", "ptx2"], ["right-1"]),
        Queue("both1", ["pboth"], ["both1-1"]),
        Queue("both2", ["pboth"], ["both2-1"]),
        Queue("in", ["pin"], ["turn"]),
        Queue("out", ["turn"], ["out-1"], order=made_by),
        Queue("dead letters", [], [], ordered=False),
    ]
    places = {c.name: (c.destination, c.subscription) for c in consumers}
    places["turn"] = ("/queue/crash.in", None)
    drains = {q.name: places[q.consumers[0]] for q in queues if q.consumers}
    drains["dead letters"] = ("/queue/ActiveMQ.DLQ", None)
    return producers, [*consumers, transformer], queues, drains


class CrashTest:
    """One run: load, kills, the emptying of the queues, the verdict."""

    def __init__(self, kills, seed, data_dir):
        self.kills = kills
        self.random = random.Random(seed)
        self.broker = Broker(data_dir, FOLDER / "broker.log")
        self.world = World(self.broker, FOLDER, seed)
        self.producers, self.consumers, self.queues, self.drains = cast(self.world)

    def die_and_return(self):
        """kill -9 and a new start, sometimes with a second kill in the middle of it."""
        self.broker.kill()
        self.world.generation += 1
        if self.random.random() < 0.25:
            self.broker.spawn()
            time.sleep(self.random.uniform(0, 0.2))
            self.broker.kill()
            self.world.generation += 1
        self.broker.start()

    def await_flow(self, receipts):
        """Returns when the load flows: a broker that is up and serves nobody is a failure."""
        wanted = self.world.receipts + receipts
        deadline = time.monotonic() + FLOW_SECONDS
        while self.world.receipts < wanted:
            if time.monotonic() > deadline:
                raise BrokerDied(f"no {receipts} receipts within {FLOW_SECONDS} s:\n{self.broker.log_tail()}")
            if self.broker.process.poll() is not None:
                raise BrokerDied(f"the broker ended by itself:\n{self.broker.log_tail()}")
            time.sleep(0.005)

    def load(self):
        self.world.running.set()
        self.world.sending.set()
        for consumer in self.consumers:
            consumer.start()
        for consumer in self.consumers:
            if hasattr(consumer, "subscribed") and not consumer.subscribed.wait(FLOW_SECONDS):
                raise BrokerDied(f"{consumer.name} could not subscribe:\n{self.broker.log_tail()}")
        for producer in self.producers:
            producer.start()
        for number in range(self.kills):
            self.await_flow(self.random.randrange(1, 2000))
            time.sleep(self.random.uniform(0, 0.5))
            self.die_and_return()
            print(f"     kill {number + 1}/{self.kills}, {self.world.receipts} receipts so far", flush=True)
        self.await_flow(500)
        self.world.sending.clear()
        for producer in self.producers:
            producer.join()
        self.world.running.clear()
        for actor in [*self.producers, *self.consumers]:
            actor.join()
        for actor in [*self.producers, *self.consumers]:
            actor.leave()
        self.world.running.set()

    def drain(self, attempt):
        """Empties every queue up to a mark; yields what is wrong with that."""
        for queue in self.queues:
            destination, subscription = self.drains[queue.name]
            mark = f"mark {attempt}"
            wire = Wire(self.broker.stomp_port)
            wire.receipt("SEND", {"destination": destination, "persistent": "true"}, payload(mark))
            wire.close()
            name = f"drain{attempt}-{queue.name.replace(' ', '-')}"
            drainer = Drainer(self.world, name, destination, mark, subscription)
            queue.consumers.append(name)
            if not drainer.drain():
                yield f"{queue.name}: the mark does not arrive"
            elif attempt > 1 and drainer.before_mark:
                yield f"{queue.name}: {drainer.before_mark} messages after it was emptied"

    def run(self):
        self.broker.start()
        self.load()
        yield "every queue can be emptied", "; ".join(self.drain(1))
        self.die_and_return()
        yield "what was emptied stays empty after one more kill", "; ".join(self.drain(2))
        status = self.broker.stop()
        yield "stops cleanly", "" if status == 0 else f"status {status}"
        histories = read(FOLDER)
        yield from verdicts(histories, self.queues, ["ptx1", "ptx2"], ["pboth"], "turn")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the broker ends with us
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    print(f"crash test: {kills} kills, seed {seed}", flush=True)
    began = time.monotonic()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="sabir-crash-") as data_dir:
        test = CrashTest(kills, seed, Path(data_dir) / "data")
        try:
            for name, complaint in test.run():
                passed, failed = passed + (not complaint), failed + bool(complaint)
                print(f"FAIL crash {name}: {complaint}" if complaint else f"ok   crash {name}", flush=True)
        except (BrokerDied, Gone) as problem:
            failed += 1
            print(f"FAIL crash: {problem!s}", flush=True)
        finally:
            if test.broker.process and test.broker.process.poll() is None:
                test.broker.kill()
    taken = sum(len(q.received) for q in test.queues)
    again = sum(q.again for q in test.queues)
    print(f"{test.world.generation} kills, {test.world.receipts} receipts, {taken} messages taken, "
          f"{again} of them more than once, {time.monotonic() - began:.0f} s, seed {seed}")
    if failed:
        print(f"histories and the broker's log: {FOLDER}")
    else:
        shutil.rmtree(FOLDER)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
