"""`sabir bench` and nats_load as a function: a load and a broker in, the summary of a run out."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from . import machine

NATS_LOAD = Path(__file__).resolve().parents[1] / "nats_load"
# Of one run; what is run by hand may take longer.
LIMIT_SECONDS, BY_HAND_SECONDS = 900, 7200


class Tool:
    def __init__(self, binary, options):
        self.binary, self.options = str(binary), options

    def run(self, workload, broker, measure):
        """One run's summary. ValueError, with what was said, if there is none."""
        load = workload.load_for(broker.name)
        seconds = measure.get("seconds") or load.seconds * measure["scale"]
        load = replace(load, seconds=max(seconds, 0.2))
        if load.protocol == "nats":
            return self.carried_out([sys.executable, str(NATS_LOAD), *nats(load), "--pid", str(broker.pid),
                                     f"127.0.0.1:{broker.ports['nats']}"])
        command = [self.binary, "bench", *arguments(workload, load, broker, measure), "--json", "--pid", str(broker.pid)]
        return self.carried_out(command, BY_HAND_SECONDS if workload.by_hand else LIMIT_SECONDS)

    def carried_out(self, command, limit=LIMIT_SECONDS):
        if self.options.verbose:
            print("  $", " ".join(command), file=sys.stderr)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise ValueError(f"not done within {limit} s: {' '.join(command)}") from None
        lines = done.stdout.strip().splitlines()
        if not lines:
            raise ValueError(f"{done.stderr.strip()[-500:]} (status {done.returncode}: {' '.join(command)})")
        found = json.loads(lines[-1])
        summary = summarised(found)
        summary["clean"] = done.returncode == 0
        if done.returncode != 0:
            summary["said"] = done.stderr.strip()[-500:]
        return summary


def arguments(workload, load, broker, measure):
    """The command line of `sabir bench` behind the word `bench`."""
    out = KINDS[workload.kind](workload, load, broker, measure)
    if broker.login:
        out += ["--login", broker.login, "--passcode", broker.passcode]
    return [str(each) for each in out]


def of_load(workload, load, broker, _):
    out = [load.protocol, "--server", f"127.0.0.1:{broker.ports[load.protocol]}", "--topology", load.topology,
           "--size", load.size, "--batch", load.batch, "--duration", load.seconds]
    if load.rate:
        out += ["--rate", load.rate]
    elif not load.topology.startswith("request"):
        out += ["--window", load.window]
    return out + way(workload, load)


def of_idle(_, load, broker, measure):
    return ["idle", *target(load, broker), "--connections", 200 if measure["smoke"] else 10_000, "--subscribe"]


def of_subscriptions(workload, load, broker, measure):
    # The titles name these numbers: no scale changes them.
    topics = ["--topics", 1000] if workload.name.endswith("hot") else []
    return ["subs", *topics, *target(load, broker), "--subscriptions", 20_000 if measure["smoke"] else 1_000_000, "--connections", 100,
            "--wildcards", 10, "--messages", scaled(500_000, measure), "--window", load.window, "--batch", load.batch]


def of_slow(_, load, broker, measure):
    return ["slow", *target(load, broker), "--fast", 20 if measure["smoke"] else 100, "--stalled", 1, "--duration", load.seconds,
            "--size", load.size, "--window", load.window, "--batch", load.batch]


def of_backlog(workload, load, broker, measure):
    ours, theirs = measure["backlog_messages"], load.messages[1]
    if workload.by_hand and not measure["smoke"]:
        ours = load.messages[0]
    count = ours if broker.name == "sabir" else min(ours, scaled(theirs, measure))
    out = ["backlog", *target(load, broker), "--messages", count, "--size", load.size, "--window", load.window,
           "--batch", load.batch, "--ack", load.ack, "--persistent"]
    command = broker.restart_command()
    return out + (["--restart-command", command] if command else [])


KINDS = {"load": of_load, "idle": of_idle, "subs": of_subscriptions, "slow": of_slow, "backlog": of_backlog}


def target(load, broker):
    """Where the measurements that are not of one protocol find a broker."""
    out = ["--protocol", load.protocol, "--url", f"tcp://127.0.0.1:{broker.ports[load.protocol]}"]
    return out + (["--mqtt-version", "3.1.1"] if load.protocol == "mqtt" else [])


def scaled(count, measure):
    return max(100, int(count * measure["scale"]))


def way(workload, load):
    """How the protocol is spoken."""
    if load.protocol == "mqtt":
        # 3.1.1 is what all of them speak.
        return ["--mqtt-version", "3.1.1", "--qos", load.qos]
    out = ["--destination", f"/queue/{workload.name}", "--ack", load.ack, "--prefetch", load.prefetch]
    return out + ["--persistent"] * load.persistent + ["--receipts"] * load.receipts


def nats(load):
    return [str(each) for each in ("--topology", load.topology, "--seconds", load.seconds, "--size", load.size, "--window", load.window,
                                   "--batch", load.batch)]


def rounded(value, digits=3):
    return None if value is None else round(value, digits)


def summarised(found):
    """What is kept of a run: the figures of the page, and what says whether to believe them."""
    rss, latency = found.get("rss_after"), found.get("latency_us") or {}
    summary = {
        "cpu_us": rounded(found.get("cpu_us_per_message")),
        "rate": rounded(found.get("rate"), 0),
        "p50_us": latency.get("p50"),
        "p99_us": latency.get("p99"),
        "rss_mib": mib(rss),
        "generator_cpu_us": rounded(found.get("generator_cpu_us_per_message")),
        "generator_bound": found.get("generator_bound", False),
        **of_topology(found),
    }
    return {key: value for key, value in summary.items() if value is not None}


def of_topology(found):
    """The figures that one kind of run has and the others have not."""
    if found["topology"] == "idle":
        return {"kb_bare": rounded(found["bytes_per_connection"] / 1000, 2),
                "kb_each": rounded(found["bytes_per_subscribed_connection"] / 1000, 2), "rss_mib": mib(found["rss_subscribed"])}
    if "subscriptions" in found:
        return {"bytes_each": found["bytes_per_subscription"], "subscribe_cpu_us": rounded(found["cpu_us_per_subscription"])}
    if "stalled" in found:
        return {"alone_cpu_us": rounded(found["baseline"]["cpu_us_per_message"]),
                "alone_p99_us": found["baseline"]["latency_us"]["p99"]}
    if found["topology"] == "backlog":
        fill, drain = found["fill"], found["drain"] or {}
        tenths = [tenth["ack_latency_us"] or {} for tenth in fill["tenths"]] or [{}]
        parts = {"filling": fill["tenths"], "draining": drain.get("tenths") or []}
        ends = {f"{end}_{name}_cpu_us": rounded(part[place].get("cpu_us_per_message"))
                for name, part in (("fill", parts["filling"]), ("drain", parts["draining"])) if part
                for end, place in (("first", 0), ("last", -1))}
        most = max((tenth.get("rss") or 0 for part in parts.values() for tenth in part), default=0)
        return {"messages": found["messages"], **ends, "rss_max_mib": mib(most), "first_delivery_ms": milliseconds(found.get("first_delivery_seconds")),
                "tenths": {name: [of_tenth(tenth) for tenth in part] for name, part in parts.items()}, "fill_rate": rounded(fill["rate"], 0), "fill_cpu_us": rounded(fill["cpu_us_per_message"]),
                "first_p99_us": tenths[0].get("p99"), "last_p99_us": tenths[-1].get("p99"),
                "bytes_each": found["rss_bytes_per_message"], "restart_ms": milliseconds(found["restart_seconds"]),
                "drain_rate": rounded(drain.get("rate"), 0), "drain_cpu_us": rounded(drain.get("cpu_us_per_message"))}
    return {}


def of_tenth(tenth):
    """What is shown of a tenth of a backlog."""
    latency = tenth.get("ack_latency_us") or {}
    kept = {"rate": rounded(tenth["rate"], 0), "cpu_us": rounded(tenth.get("cpu_us_per_message")), "p50_us": latency.get("p50"),
            "p99_us": latency.get("p99"), "rss_mib": mib(tenth.get("rss"))}
    return {key: value for key, value in kept.items() if value is not None}


def mib(count):
    return None if count is None else round(count / machine.MIB, 1)


def milliseconds(seconds):
    return None if seconds is None else round(seconds * 1000, 1)
