"""Reads the histories of a crash test and says what did not hold.

What may happen: a message whose receipt never came is gone, or is there; one that
was delivered and not acknowledged comes back; one whose acknowledgement got no
receipt comes back, or does not. All else is a failure.
"""

import collections
import json


def number_of(key):
    """Producer and sequence of a key; a transaction's parts count up inside its number."""
    producer, *numbers = key.split(":")
    return producer, tuple(int(n) for n in numbers)


def made_by(key):
    """Transformer and transaction number of what it made."""
    _, _, transformer, number = key.rsplit(":", 3)
    return transformer, (int(number),)


class Queue:
    """One place where messages wait, and all who took from it."""

    def __init__(self, name, producers, consumers, order=number_of, ordered=True):
        self.name = name
        self.producers = producers
        self.consumers = consumers
        self.order = order
        self.ordered = ordered
        self.received = collections.defaultdict(list)  # key → [(generation, number)]
        self.acknowledged = set()
        self.settled = {}  # key → (generation, number) of the first receipt
        self.again = 0

    def load(self, histories):
        for consumer in self.consumers:
            for kind, generation, number, *facts in histories.get(consumer, []):
                when = (generation, number)
                if kind == "M":
                    self.again += bool(self.received[facts[0]])
                    self.received[facts[0]].append(when)
                elif kind == "A":
                    self.acknowledged.update(facts[0])
                elif kind == "K":
                    for key in facts[0]:
                        self.settled[key] = min(when, self.settled.get(key, when))

    def lost(self, receipted):
        return sorted(receipted - self.acknowledged)

    def came_back(self):
        return [key for key, when in self.settled.items() if any(at > when for at in self.received[key])]

    def out_of_order(self, histories):
        """Within one subscription each producer's messages come in the order they were sent."""
        wrong = []
        for consumer in self.consumers:
            last = {}
            for kind, _, _, *facts in histories.get(consumer, []):
                if kind == "N":
                    last = {}
                elif kind == "M":
                    producer, number = self.order(facts[0])
                    if number < last.get(producer, ()):
                        wrong.append(facts[0])
                    last[producer] = number
        return wrong


def read(folder):
    """Every actor's events, by its name."""
    histories = {}
    for path in sorted(folder.glob("*.jsonl")):
        with open(path, encoding="ascii") as lines:
            histories[path.stem] = [json.loads(line) for line in lines]
    return histories


def of_kind(histories, producers, kind):
    return [facts for p in producers for k, _, _, *facts in histories.get(p, []) if k == kind]


def some(things):
    return ", ".join(str(t) for t in list(things)[:5]) + (" …" if len(things) > 5 else "")


def torn(parts, queues, since):
    """Of a group written at once in generation `since` and not receipted: seen later in part, but not whole.

    What was seen in that generation alone proves nothing: it may have been delivered, or even
    acknowledged, before the crash took it.
    """
    if not any(at[0] > since for key in parts for q in queues for at in q.received.get(key, [])):
        return False
    return any(key not in q.acknowledged for key in parts for q in queues)


def verdicts(histories, queues, transactors, composites, transformer):
    """Yields (name, complaint); an empty complaint is a check that held."""
    for queue in queues:
        queue.load(histories)
    by_name = {queue.name: queue for queue in queues}

    errors = [f"{who}: {e[3]}" for who, events in histories.items() for e in events if e[0] == "E"]
    yield "no ERROR, no damaged body", some(errors)

    for queue in queues:
        plain = [p for p in queue.producers if p not in transactors and p != transformer]
        receipted = {facts[0] for facts in of_kind(histories, plain, "R")}
        sent = {facts[0] for facts in of_kind(histories, plain, "S")}
        if plain:
            lost = queue.lost(receipted)
            yield f"{queue.name}: no receipted message is lost ({len(receipted)})", some(lost)
            yield f"{queue.name}: nothing but what was sent", some(set(queue.received) - sent)
        yield f"{queue.name}: none acknowledged with a receipt comes back ({len(queue.settled)})", some(queue.came_back())
        if queue.ordered:
            yield f"{queue.name}: order per producer", some(queue.out_of_order(histories))

    for producer in transactors:
        targets = [q for q in queues if producer in q.producers]
        keys, committing, receipted = {}, {}, set()
        for kind, generation, _, *facts in histories.get(producer, []):
            if kind == "B":
                keys[facts[0]] = facts[1]
            elif kind == "C":
                committing[facts[0]] = generation
            elif kind == "Y":
                receipted.add(facts[0])
        aborted = set(keys) - set(committing)
        lost = [tx for tx in receipted for q in targets if not q.acknowledged.issuperset(keys[tx])]
        yield f"{producer}: a receipted COMMIT is whole ({len(receipted)})", some(lost)
        leaked = [tx for tx in aborted for q in targets if any(key in q.received for key in keys[tx])]
        yield f"{producer}: nothing of what was aborted or left open ({len(aborted)})", some(leaked)
        unsure = {tx: at for tx, at in committing.items() if tx not in receipted}
        halves = [tx for tx, at in unsure.items() if torn(keys[tx], targets, at)]
        yield f"{producer}: a COMMIT without receipt is all or nothing ({len(unsure)})", some(halves)

    for producer in composites:
        targets = [q for q in queues if producer in q.producers]
        receipted = {facts[0] for facts in of_kind(histories, [producer], "R")}
        unsure = [(e[3], e[1]) for e in histories.get(producer, []) if e[0] == "S" and e[3] not in receipted]
        halves = [key for key, at in unsure if torn([key], targets, at)]
        yield f"{producer}: a composite send without receipt is all or nothing ({len(unsure)})", some(halves)

    source = next(q for q in queues if transformer in q.consumers)
    target = next(q for q in queues if transformer in q.producers)
    made = collections.defaultdict(set)
    for key, at in target.received.items():
        origin, _, tx = key.partition(":of:")
        made[origin].add(tx)
    twice = [key for key, txs in made.items() if len(txs) > 1 and not only_before_crash(key, txs, target)]
    yield f"{transformer}: nothing is made twice ({len(made)})", some(twice)
    # What the transformer had not come to when the load ended was taken by whoever emptied the queue.
    others = [who for who in source.consumers if who != transformer]
    left = {key for facts in of_kind(histories, others, "A") for key in facts[0]}
    receipted = {facts[0] for facts in of_kind(histories, source.producers, "R")}
    yield f"{transformer}: something is made of every message", some(sorted(receipted - set(made) - left))
    committed = {key for facts in of_kind(histories, [transformer], "K") for key in facts[0]}
    yield f"{transformer}: a receipted COMMIT is whole ({len(committed)})", some(sorted(committed - set(made)))
    dead = by_name.get("dead letters")
    if dead:
        yield "nothing was dead-lettered", some(dead.received)


def only_before_crash(key, txs, target):
    """True when all but one of the transactions were seen in a single generation and never acknowledged with a
    receipt: a COMMIT that nobody was promised, seen and then gone with the crash."""
    lasting = 0
    for tx in txs:
        name = f"{key}:of:{tx}"
        generations = {at[0] for at in target.received[name]}
        lasting += len(generations) > 1 or name in target.settled
    return lasting <= 1
