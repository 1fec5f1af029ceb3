"""`sabir bench` and nats_load as a function: a load and a broker in, the summary of a run out."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from . import brokers as stable
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
    port = broker.ports[load.protocol]
    shape, *counts = load.topology
    out = [load.protocol, "--server", f"127.0.0.1:{port}", "--size", str(load.size), "--window", str(load.window)]
    if load.protocol == "mqtt":
        out += ["--mqtt-version", "3.1.1", "--qos", str(load.qos), "--duration", str(max(1, round(load.seconds))), "--batch", str(load.batch)]
        out += {"one": [], "pairs": ["--pairs", *counts], "fan-in": ["--publishers", *counts],
                "fan-out": ["--subscribers", *counts]}[shape]
        if broker.login:
            out += ["--username", broker.login, "--password", broker.passcode]
    else:
        fast, slow = load.messages
        count = fast if isinstance(broker, stable.Sabir) else slow
        out += ["--destination", f"/queue/{workload.name}", "--messages", str(max(100, int(count * measure["scale"]))),
                "--ack", load.ack, "--prefetch", str(load.prefetch)]
        if shape == "competing":
            out += ["--producers", counts[0], "--consumers", counts[1]]
        out += ["--persistent"] * load.persistent + ["--receipts"] * load.receipts
        if broker.login:
            out += ["--login", broker.login, "--passcode", broker.passcode]
    return [str(each) for each in out]


def nats(load):
    shape = ":".join(str(part) for part in load.topology)
    return ["--topology", shape, "--seconds", str(load.seconds), "--size", str(load.size), "--window", str(load.window),
            "--batch", str(load.batch)]


def rounded(value, digits=3):
    return None if value is None else round(value, digits)


def summarised(found):
    """What is kept of a run: the figures of the page, and what says whether to believe them."""
    rss = found.get("rss_after", found.get("broker_rss"))
    return {
        "cpu_us": rounded(found.get("cpu_us_per_message", found.get("broker_cpu_us"))),
        "rate": rounded(found.get("rate", found.get("per_second")), 0),
        "rss_mib": None if rss is None else round(rss / machine.MIB, 1),
        "generator_cpu_us": rounded(found.get("generator_cpu_us_per_message", found.get("generator_cpu_us"))),
        "generator_bound": found.get("generator_bound", False),
    }
