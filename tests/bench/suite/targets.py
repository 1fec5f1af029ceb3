"""What is aimed at, and whether it was reached. Each target gives the row it belongs to, a text, and a verdict."""

import statistics
from dataclasses import dataclass

NAMES = {"sabir": "Sabir", "activemq": "ActiveMQ", "rabbitmq": "RabbitMQ", "mosquitto": "Mosquitto",
         "mosquitto-nodelay": "Mosquitto, no delay", "nats": "nats-server", "rumqttd": "rumqttd"}

def median(rounds, key):
    """The median of one figure over the rounds that have it; None if no round has."""
    values = [each[key] for each in rounds if each.get(key) is not None]
    return statistics.median(values) if values else None


def pairs(results, ours, theirs, key):
    """The figure of both in each round that both have it in: they ran next to each other."""
    theirs_by_round = {each["round"]: each.get(key) for each in results.get(theirs, [])}
    for each in results.get(ours, []):
        other = theirs_by_round.get(each["round"])
        if each.get(key) is not None and other is not None:
            yield each[key], other


def times(ratio):
    """Two digits where a target may be near."""
    return f"{ratio:.2f}" if ratio < 20 else f"{ratio:.0f}"


@dataclass
class Verdict:
    """One target, judged. `met` is None where a figure is missing."""

    broker: str
    target: str
    figure: str
    met: bool | None

    def text(self):
        return {True: "met", False: "**missed**", None: "not measured"}[self.met] + (f" ({self.figure})" if self.figure else "")


@dataclass
class AtMost:
    """Our own figure has a limit."""

    key: str
    value: float
    unit: str

    def judge(self, results):
        found = median(results.get("sabir", []), self.key)
        return Verdict("sabir", f"≤ {self.value:g} {self.unit}", "", None if found is None else found <= self.value)


@dataclass
class Against:
    """Of our own runs, one figure is at most so many times another of the same run: the median of the rounds."""

    key: str
    base: str
    value: float
    text: str

    def judge(self, results):
        ratios = [each[self.key] / each[self.base] for each in results.get("sabir", []) if each.get(self.key) and each.get(self.base)]
        target = f"{self.text} ≤ {self.value:g} ×"
        if not ratios:
            return Verdict("sabir", target, "", None)
        found = statistics.median(ratios)
        return Verdict("sabir", target, f"{times(found)} ×; {', '.join(map(times, ratios))}", found <= self.value)


@dataclass
class Times:
    """A peer takes so many times what we take; or, for a rate, we do so many times what it does."""

    peer: str
    value: float
    key: str = "cpu_us"
    more_is_better: bool = False

    def ratio(self, ours, theirs):
        above, below = (ours, theirs) if self.more_is_better else (theirs, ours)
        return above / below if below else None

    def judge(self, results):
        ours, theirs = median(results.get("sabir", []), self.key), median(results.get(self.peer, []), self.key)
        found = None if None in (ours, theirs) else self.ratio(ours, theirs)
        what = "rate" if self.more_is_better else "CPU"
        text = f"≥ {self.value:g} × its {what}" if self.more_is_better else f"≥ {self.value:g} × Sabir's {what}"
        if found is None:
            return Verdict(self.peer, text, "", None)
        # The worst round says whether the median can be believed.
        worst = min(filter(None, (self.ratio(*pair) for pair in pairs(results, "sabir", self.peer, self.key))), default=found)
        return Verdict(self.peer, text, f"{times(found)} ×, worst round {times(worst)}", found >= self.value)


@dataclass
class Below:
    """Our figure is below a peer's, times a factor."""

    key: str
    peers: list
    factor: float = 1.0
    what: str = ""

    def judge(self, results):
        ours = median(results.get("sabir", []), self.key)
        theirs = [found for peer in self.peers if (found := median(results.get(peer, []), self.key)) is not None]
        names = [NAMES[peer] for peer in self.peers if "-" not in peer]
        better = f"the better of {' and '.join(names)}" if len(names) > 1 else f"{names[0]}'s"
        target = f"{self.what} ≤ {self.factor:g} × {better}" if self.factor != 1 else f"{self.what} below {better}"
        if ours is None or not theirs:
            return Verdict("sabir", target, "", None)
        best = min(theirs)
        met = ours <= best * self.factor if self.factor != 1 else ours < best
        return Verdict("sabir", target, f"{ours / best:.2f} ×" if best else "", met)
