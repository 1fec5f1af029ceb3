"""`sabir bench` and nats_load as a function: a load and a broker in, the summary of a run out."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from . import machine

NATS_LOAD = Path(__file__).resolve().parents[1] / "nats_load"
LIMIT_SECONDS = 900


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
        return self.carried_out(command)

    def carried_out(self, command):
        if self.options.verbose:
            print("  $", " ".join(command), file=sys.stderr)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise ValueError(f"not done within {LIMIT_SECONDS} s: {' '.join(command)}") from None
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
    del measure
    out = [load.protocol, "--server", f"127.0.0.1:{broker.ports[load.protocol]}", "--topology", load.topology,
           "--size", load.size, "--batch", load.batch, "--duration", load.seconds]
    out += ["--rate", load.rate] if load.rate else ["--window", load.window] if not load.topology.startswith("request") else []
    out += way(workload, load)
    if broker.login:
        out += ["--login", broker.login, "--passcode", broker.passcode]
    return [str(each) for each in out]


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
    return {
        "cpu_us": rounded(found.get("cpu_us_per_message")),
        "rate": rounded(found.get("rate"), 0),
        "p50_us": latency.get("p50"),
        "p99_us": latency.get("p99"),
        "rss_mib": None if rss is None else round(rss / machine.MIB, 1),
        "generator_cpu_us": rounded(found.get("generator_cpu_us_per_message")),
        "generator_bound": found.get("generator_bound", False),
    }
