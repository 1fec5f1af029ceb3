"""The workloads that are published: what is run, which brokers take part, what is aimed at.

A load is told in neutral words; `tool` turns it into a command line. Every broker gets the same load, but for a protocol that it
does not speak, and for the number of messages where there is one: a peer would take minutes for what we do in a second.
"""

from dataclasses import dataclass, field, replace

from .targets import Against, AtMost, Below, Times

# The columns of a workload's table: key of a run's summary, heading, digits after the point.
CPU = ("cpu_us", "CPU µs per message", 2)
RATE = ("rate", "messages/s", 0)
P50 = ("p50_us", "p50 µs", 0)
P99 = ("p99_us", "p99 µs", 0)
MEMORY = ("rss_mib", "resident MiB", 0)


@dataclass(frozen=True)
class Load:
    """What one run asks of a broker."""

    protocol: str
    topology: str = "one-to-one"  # as `sabir bench --topology` says it
    qos: int = 0
    size: int = 64
    window: int = 100
    batch: int = 32
    seconds: float = 4.0
    rate: int | None = None  # messages a second, sent at their times whatever the broker does
    # Where a run has a number of messages and no duration: for us and for a peer.
    messages: tuple = ()
    ack: str = "auto"
    prefetch: int = 1000
    persistent: bool = False
    receipts: bool = False


@dataclass(frozen=True)
class Workload:
    """One table of the page."""

    name: str
    title: str
    about: str
    kind: str  # load, idle, backlog, subs, slow, start: what `runner` does with it
    load: Load | None
    brokers: tuple
    columns: tuple
    targets: tuple = ()
    # What a broker is asked instead, by its name.
    instead: dict = field(default_factory=dict)
    # Environment of a peer's script, by its name.
    environment: dict = field(default_factory=dict)
    # A new process with a new folder for every run: where memory is measured, nothing may be left of the run before.
    fresh: bool = False
    # It takes long, and runs only if it is named in full.
    by_hand: bool = False
    section: str = "Latency"

    def load_for(self, broker):
        return self.instead.get(broker, self.load)


MQTT_PEERS = ("sabir", "mosquitto", "rumqttd", "nats")
# Mosquitto coalesces small writes by default, which is cheap and slow. Where that matters it is there both ways.
NAGLE_OR_NOT = ("sabir", "mosquitto", "mosquitto-nodelay", "rumqttd", "nats")
QOS0 = Load("mqtt")


def at_qos0(name, title, about, topology, limit, nats, rumqttd=10.0):
    """QoS 0; nats-server is loaded in its own protocol, which is what it is fast at."""
    load = replace(QOS0, topology=topology)
    return Workload(
        name, title, about, "load", load, NAGLE_OR_NOT if topology == "one-to-one" else MQTT_PEERS, (CPU, RATE, MEMORY),
        (AtMost("cpu_us", limit, "µs"), Times("mosquitto", 10), Times("rumqttd", rumqttd), Times("nats", nats)),
        instead={"nats": replace(load, protocol="nats")}, section="MQTT")


def at_qos(name, title, qos, limit):
    load = Load("mqtt", "pairs:10", qos=qos)
    return Workload(
        name, title, "Ten publishers with a subscriber and a topic each, 64 bytes, a window of 100.", "load", load,
        # nats-server speaks no QoS 2 in this version.
        MQTT_PEERS if qos == 1 else MQTT_PEERS[:-1], (CPU, RATE, MEMORY),
        (AtMost("cpu_us", limit, "µs"), Times("rumqttd", 4), Times("mosquitto", 10)), section="MQTT")


def stomp_queue(name, title, ack, limit):
    load = Load("stomp", size=100, window=1000, batch=256, ack=ack)
    return Workload(
        name, title, "One producer, one queue in memory, one consumer; 100 bytes; 1,000 messages in flight.", "load", load,
        ("sabir", "activemq", "rabbitmq"), (CPU, RATE, MEMORY), (AtMost("cpu_us", limit, "µs"), Times("activemq", 30)),
        section="STOMP")


ASK = Load("mqtt", "request-reply:1", seconds=3)
IDLE = (("kb_bare", "KB each", 2), ("kb_each", "KB each, subscribed", 2), MEMORY)

WORKLOADS = (
    at_qos0("mqtt0-one", "MQTT QoS 0, 1 → 1", "One publisher, one subscriber, 64 bytes, a window of 100.", "one-to-one", 0.4, 2),
    at_qos0("mqtt0-fan-in", "MQTT QoS 0, 100 → 1", "A hundred publishers, one subscriber.", "fan-in:100", 0.5, 2),
    at_qos0("mqtt0-fan-out", "MQTT QoS 0, 1 → 100", "One publisher, a hundred subscribers; figures are per delivery.",
            "fan-out:100", 0.2, 2, rumqttd=2.5),
    at_qos0("mqtt0-pairs", "MQTT QoS 0, 50 pairs", "Fifty publishers with a subscriber and a topic each.", "pairs:50", 0.4, 2),
    at_qos("mqtt1-pairs", "MQTT QoS 1, 10 pairs", 1, 1.0),
    at_qos("mqtt2-pairs", "MQTT QoS 2, 10 pairs", 2, 1.8),
    stomp_queue("stomp-auto", "STOMP queue 1 → 1, `auto`", "auto", 1.0),
    stomp_queue("stomp-individual", "STOMP queue 1 → 1, `client-individual`", "client-individual", 1.5),
    Workload(
        "stomp-durable", "STOMP queue 4 × 4, persistent, receipts, `client-individual`",
        "Four producers with 64 messages in flight until their receipts come, four consumers; 100 bytes; the same "
        "disk for all. Sabir and ActiveMQ confirm what is synced; RabbitMQ also what a consumer has acknowledged before it was written.",
        "load",
        Load("stomp", "competing:4x4", size=100, window=64, batch=32, ack="client-individual",
             persistent=True, receipts=True),
        ("sabir", "activemq", "rabbitmq"), (CPU, RATE, MEMORY),
        (AtMost("cpu_us", 4.0, "µs"), Times("activemq", 20, "rate", True), Times("rabbitmq", 20, "rate", True)),
        section="STOMP"),
    Workload(
        "request-mqtt", "Request and reply over MQTT, one client",
        "QoS 0, one request on its way: the time from sending it to its answer, twice through the broker.", "load", ASK,
        ("sabir", "mosquitto", "mosquitto-nodelay", "nats", "rumqttd", "activemq", "rabbitmq"), (P50, P99, CPU),
        (Below("p50_us", ["mosquitto", "mosquitto-nodelay", "nats"], 1.1, "p50"), Below("p50_us", ["rumqttd"], 1, "p50"),
         Below("p50_us", ["activemq"], 1, "p50"), Below("p50_us", ["rabbitmq"], 1, "p50"))),
    Workload(
        "request-stomp", "Request and reply over STOMP, one client",
        "The same over STOMP; Mosquitto and nats-server, which do not speak it, over MQTT.", "load",
        replace(ASK, protocol="stomp"),
        ("sabir", "mosquitto", "nats", "activemq", "rabbitmq"), (P50, P99, CPU),
        (Below("p50_us", ["mosquitto", "nats"], 1.1, "p50"), Below("p50_us", ["activemq"], 1, "p50"),
         Below("p50_us", ["rabbitmq"], 1, "p50")),
        instead={"mosquitto": ASK, "nats": ASK}),
    Workload(
        "paced", "MQTT QoS 0, 10 pairs, 5,000 messages a second",
        "Open loop: each message is sent at its time, and its latency counts from that time.", "load",
        Load("mqtt", "pairs:10", rate=5000, seconds=6), NAGLE_OR_NOT, (CPU, P50, P99),
        (Below("cpu_us", ["mosquitto", "mosquitto-nodelay"], 1, "CPU"), AtMost("p99_us", 1000, "µs p99"))),
    Workload(
        "slow", "MQTT QoS 0, 1 → 100 beside one that does not read",
        "A hundred subscribers read as fast as they can, flat out; then the same with one more that has stopped reading. Figures are "
        "per delivery to the hundred.", "slow",
        replace(QOS0, topology="fan-out:100"), ("sabir", "mosquitto", "nats"),
        (("alone_cpu_us", "CPU µs, all read", 2), ("cpu_us", "CPU µs, one does not", 2), ("alone_p99_us", "p99 µs, all read", 0),
         ("p99_us", "p99 µs, one does not", 0), MEMORY),
        (Against("cpu_us", "alone_cpu_us", 1.2, "CPU"), Against("p99_us", "alone_p99_us", 1.5, "p99"))),
    Workload(
        "backlog", "STOMP queue, a backlog of persistent messages",
        "Filled by four producers without a consumer, with receipts, 100 bytes each; Sabir is then restarted; then drained, in order "
        "and complete.", "backlog",
        Load("stomp", size=100, window=256, batch=64, messages=(1_000_000, 50_000), ack="client-individual"),
        ("sabir", "activemq", "rabbitmq"),
        (("messages", "messages", 0), ("fill_rate", "filled/s", 0), ("fill_cpu_us", "CPU µs to fill", 2),
         ("first_p99_us", "receipt p99 µs, first tenth", 0), ("last_p99_us", "…, last tenth", 0),
         ("bytes_each", "resident bytes each", 0), ("restart_ms", "restart ms", 0), ("drain_rate", "drained/s", 0),
         ("drain_cpu_us", "CPU µs to drain", 2)),
        fresh=True, section="What it holds"),
    Workload(
        "hundred-million", "STOMP queue, a backlog of 100,000,000 persistent messages",
        "The same with a hundred million: 100 bytes each, four producers, receipts for all, no consumer; a restart; then one consumer "
        "in `client-individual` takes them all. First delivery is counted from the signal that ends the broker.", "backlog",
        Load("stomp", size=100, window=256, batch=64, messages=(100_000_000, 0), ack="client-individual"), ("sabir",),
        (("fill_rate", "filled/s", 0), ("fill_cpu_us", "CPU µs to fill", 2), ("first_p99_us", "receipt p99 µs, first tenth", 0),
         ("last_p99_us", "…, last tenth", 0), ("rss_max_mib", "most resident MiB", 0), ("first_delivery_ms", "first delivery ms", 0),
         ("drain_rate", "drained/s", 0), ("drain_cpu_us", "CPU µs to drain", 2)),
        (Against("last_fill_cpu_us", "first_fill_cpu_us", 1.2, "CPU of the last tenth, filling,"),
         Against("last_drain_cpu_us", "first_drain_cpu_us", 1.2, "CPU of the last tenth, draining,"),
         Against("last_p99_us", "first_p99_us", 1.5, "receipt p99 of the last tenth"),
         AtMost("rss_max_mib", 256, "MiB"), AtMost("first_delivery_ms", 2000, "ms")),
        fresh=True, by_hand=True, section="What it holds"),
    Workload(
        "idle-mqtt", "10,000 idle MQTT connections", "Connected and doing nothing; then a subscription each, at QoS 0.", "idle",
        Load("mqtt"), ("sabir", "mosquitto", "nats", "rumqttd", "activemq"), IDLE,
        (AtMost("kb_bare", 2.0, "KB"), AtMost("kb_each", 2.0, "KB, subscribed")), environment={"activemq": {"PEER_NIO": "1"}}, fresh=True, section="What it holds"),
    Workload(
        "idle-stomp", "10,000 idle STOMP connections", "Connected and doing nothing; then a subscription each, to a topic.", "idle",
        Load("stomp"), ("sabir", "activemq"), IDLE,
        (AtMost("kb_bare", 3.0, "KB"), AtMost("kb_each", 3.0, "KB, subscribed")), environment={"activemq": {"PEER_NIO": "1"}}, fresh=True, section="What it holds"),
    Workload(
        "subscriptions", "1,000,000 MQTT subscriptions", "On 100 connections, one in ten with a wildcard; then messages to topics "
        "that one of them wants, each to another: CPU of the whole message, the match being a part of it.", "subs", Load("mqtt"), ("sabir", "mosquitto", "nats"),
        (("bytes_each", "bytes each", 0), ("subscribe_cpu_us", "CPU µs to subscribe", 2), ("cpu_us", "CPU µs per message", 2)),
        (AtMost("bytes_each", 150, "B"),), fresh=True, section="What it holds"),
    Workload(
        "subscriptions-hot", "1,000,000 MQTT subscriptions, a thousand topics busy", "The same, but that the messages go to a thousand "
        "of the topics in turn. CPU of the whole message: received, matched, delivered.", "subs", Load("mqtt"),
        ("sabir", "mosquitto", "nats"), (CPU,), (AtMost("cpu_us", 1.0, "µs a match; judged by the whole message"),),
        fresh=True, section="What it holds"),
    Workload(
        "start", "Start, idle memory, size",
        "From the start of the process to the first connection accepted, with an empty folder; resident memory after five "
        "seconds; the binary. A peer's start is known to about 30 ms.", "start", None,
        ("sabir", "mosquitto", "nats", "rumqttd", "activemq", "rabbitmq"),
        (("start_ms", "start ms", 1), MEMORY, ("binary_mb", "binary MB", 1)),
        (AtMost("start_ms", 20, "ms"), AtMost("rss_mib", 15, "MiB"), AtMost("binary_mb", 25, "MB")), fresh=True, section="What it holds"),
)
