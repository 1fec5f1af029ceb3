"""Runs one workload on several brokers: all of them started, then round after round, every other one in reverse order."""

import os
import subprocess
import sys
import tempfile
import time

from . import brokers as stable
from . import machine

IDLE_SECONDS = 5
JVM_SECONDS = 10.0


def stripped_mb(binary):
    """Its size as it is packaged: without the line tables of the release profile."""
    with tempfile.NamedTemporaryFile() as copy:
        if subprocess.run(["strip", "-o", copy.name, binary]).returncode == 0:
            binary = copy.name
        return round(os.path.getsize(binary) / 1e6, 1)


def say(text):
    print(text, file=sys.stderr, flush=True)


class Runner:
    """Carries workloads out and collects a summary of each run."""

    def __init__(self, tool, options):
        self.tool, self.options = tool, options
        self.problems = []

    def run(self, workload, brokers):
        """Results by broker's name, and what should be known about them: versions, durability, how busy the machine was."""
        about = {broker.name: {"version": broker.version, "durability": broker.durability} for broker in brokers}
        results = {broker.name: [] for broker in brokers}
        # What others do is measured before ours begins and after it has ended.
        busy = [machine.busy_cores()]
        try:
            if not workload.fresh:
                for broker in list(brokers):
                    if not self.started(workload, broker):
                        brokers.remove(broker)
                for broker in brokers:
                    self.warm(workload, broker)
            for number in range(1 if self.options.smoke else self.options.rounds):
                for broker in brokers if number % 2 == 0 else reversed(brokers):
                    self.one(workload, broker, number, results)
        finally:
            for broker in brokers:
                broker.stop()
        busy.append(machine.busy_cores())
        return {"results": {name: rounds for name, rounds in results.items() if rounds}, "brokers": about,
                "busy_cores": round(sum(busy) / len(busy), 2)}

    def started(self, workload, broker):
        try:
            broker.start(workload.environment.get(broker.name))
            return True
        except stable.CannotStart as problem:
            self.problem(workload, broker, str(problem))
            return False

    def problem(self, workload, broker, text):
        self.problems.append(f"{workload.name}, {broker.name}: {text}")
        say(f"  {broker.name}: {text}")

    def warm(self, workload, broker):
        """A run that does not count. A Java machine compiles while it runs; the others touch their memory."""
        if self.options.smoke or workload.kind not in ("load", "slow"):
            return
        seconds = JVM_SECONDS if broker.name == "activemq" else 1.0
        try:
            self.tool.run(workload, broker, {**self.options.measure, "seconds": seconds * min(1.0, self.options.scale)})
        except ValueError as problem:
            say(f"  {broker.name}, warming up: {problem}")

    def one(self, workload, broker, number, results):
        if workload.fresh and not self.begins_afresh(workload, broker):
            return
        try:
            summary = self.measure(workload, broker)
        finally:
            if workload.fresh:
                broker.stop()
        if summary is None:
            return
        summary["round"] = number + 1
        if not summary["clean"]:
            self.problem(workload, broker, f"round {number + 1} is not clean: {summary.get('said', '')}")
            if not workload.fresh:  # what it is left with would spoil the next round
                broker.stop()
                if self.started(workload, broker):
                    self.warm(workload, broker)
            return
        results[broker.name].append(summary)
        shown = ", ".join(f"{summary[key]:.{digits}f} {title}" for key, title, digits in workload.columns
                          if summary.get(key) is not None)
        say(f"  round {number + 1}  {broker.name:<18} {shown}" + ("  GENERATOR-BOUND" if summary.get("generator_bound") else ""))

    def begins_afresh(self, workload, broker):
        if workload.kind == "start":
            return True
        if not self.started(workload, broker):
            return False
        # Files are made ahead, a Java machine settles: memory is compared with what it has come to rest at.
        time.sleep(0.3 if self.options.smoke else IDLE_SECONDS)
        return True

    def measure(self, workload, broker):
        if workload.kind == "start":
            return self.start(workload, broker)
        try:
            return self.tool.run(workload, broker, self.options.measure)
        except ValueError as problem:
            self.problem(workload, broker, str(problem))
            return None

    def start(self, workload, broker):
        try:
            seconds = broker.start(workload.environment.get(broker.name))
        except stable.CannotStart as problem:
            self.problem(workload, broker, str(problem))
            return None
        time.sleep(0.3 if self.options.smoke else IDLE_SECONDS)
        summary = {"start_ms": round(seconds * 1000, 2), "rss_mib": round(machine.resident(broker.pid) / machine.MIB, 1),
                   "clean": True}
        if isinstance(broker, stable.Sabir):
            summary["binary_mb"] = stripped_mb(broker.binary)
        return summary
