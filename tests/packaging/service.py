#!/usr/bin/env python3
"""Checks the systemd unit with systemd's own tools, and starts what it starts, as a service manager would.
See tests/packaging.sh."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from report import ROOT, START_SECONDS, aloud, as_user, ended, free_ports, need, outcome, run_checks, strace_works

PACKAGING = ROOT / "packaging"
# Of ten: 0 is a service that can do nothing.
EXPOSURE_MAX = 2.0
# Anybody but root.
SERVICE_USER = "61613:61613"
WATCHDOG_SECONDS = 2
# What the allocator and the C library try and do without.
REFUSED_AND_FINE = {"sched_setaffinity"}

binary = os.path.realpath(os.environ.get("SABIR_BIN") or ROOT / "target/release/sabir")


def read_unit(path):
    """Every key with its values in order."""
    found = {}
    for line in path.read_text().splitlines():
        line = line.strip()
        if line and line[0] not in "#;[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


class Manager:
    """The side of systemd: a datagram socket, and what came to it."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(START_SECONDS)
        if not address.startswith("\0"):
            os.chmod(address, 0o666)

    def wait_for(self, line):
        """Messages up to the one that has this line."""
        seen = []
        while True:
            try:
                seen.append(self.socket.recv(4096).decode().splitlines())
            except TimeoutError:
                need(False, f"{line} did not come; these came: {seen}")
            if line in seen[-1]:
                return seen


class Service:
    def __init__(self):
        self.unit = read_unit(PACKAGING / "sabir.service")
        self.room = Path(tempfile.mkdtemp(prefix="sabir-service."))
        self.room.chmod(0o755)
        self.binary = self.room / "sabir"
        shutil.copy2(binary, self.binary)
        for name in ("lib", "run"):
            (self.room / name).mkdir()
            if os.getuid() == 0:
                os.chown(self.room / name, *map(int, SERVICE_USER.split(":")))
        self.process = None

    def one(self, key):
        values = self.unit.get(key, [])
        need(len(values) == 1, f"{key} is there {len(values)} times")
        return values[0]

    def systemd_reads_it(self):
        if not shutil.which("systemd-analyze"):
            aloud("systemd-analyze verify, systemd-analyze security: systemd is not installed here")
            return
        copy = self.room / "sabir.service"
        program = self.one("ExecStart").split()[0]
        copy.write_text((PACKAGING / "sabir.service").read_text().replace(program, str(self.binary)))
        status, said = outcome(["systemd-analyze", "verify", "--man=no", str(copy)], dict(os.environ))
        # It also tells of units of this machine.
        complaints = [line for line in said.splitlines() if "sabir" in line]
        need(not complaints and status == 0, f"systemd-analyze verify has status {status}:\n{said}")
        status, said = outcome(["systemd-analyze", "security", "--no-pager", "--offline=true", str(copy)],
                               dict(os.environ))
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        need(exposure and float(exposure[1]) <= EXPOSURE_MAX, f"systemd-analyze security:\n{said}")

    def it_agrees_with_its_configuration(self):
        need(self.one("Type") == "notify" and self.one("WatchdogSec").isdigit(), "no Type=notify, or no WatchdogSec")
        program, *line = shlex.split(self.one("ExecStart"))
        need(line == ["serve", "--config", "/etc/sabir/sabir.toml"], f"ExecStart has {line}")
        need(self.one("ConfigurationDirectory") == "sabir", "the configuration is not where the unit has it")
        text = (PACKAGING / "sabir.toml").read_text()
        state, runtime = f"/var/lib/{self.one('StateDirectory')}", f"/run/{self.one('RuntimeDirectory')}"
        need(f'dir = "{state}"' in text and f'"{runtime}/' in text, "paths that the unit does not make writable")
        users = (PACKAGING / "sabir.sysusers").read_text()
        need(f"u {self.one('User')} " in users and f" {state}" in users, "sabir.sysusers makes another user")
        ports = free_ports(4)
        self.http = ports[3]
        names = ("stomp", "mqtt", "any", "http")
        self.env = {f"SABIR__LISTENERS__{name.upper()}": f"127.0.0.1:{port}" for name, port in zip(names, ports)}
        self.env["SABIR_SERVER"] = f"stomp://127.0.0.1:{ports[0]}"
        config = self.room / "sabir.toml"
        config.write_text(text.replace(state, str(self.room / "lib")).replace(runtime, str(self.room / "run")))
        self.line = [str(self.binary), "serve", "--config", str(config)]
        status, said = outcome([str(self.binary), "config", "check", str(config)], self.env, SERVICE_USER)
        need(status == 0, said)

    def start(self, address, before=()):
        env = dict(self.env, NOTIFY_SOCKET=address.replace("\0", "@", 1), WATCHDOG_USEC=str(WATCHDOG_SECONDS * 10**6))
        # The watchdog is meant for the one process that this shell becomes.
        line = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *as_user(SERVICE_USER), *self.line]
        if before:
            line = [*before, *as_user(SERVICE_USER), *self.line]
        with open(self.room / "log", "ab") as log:
            self.process = subprocess.Popen(line, env=dict(env, PATH=os.environ["PATH"]), stdout=log, stderr=log)

    def sabir(self, *line):
        status, said = outcome([str(self.binary), *line], self.env)
        need(status == 0, f"sabir {' '.join(line)} has status {status}: {said}")
        return said

    def it_tells_a_manager(self):
        for address in (str(self.room / "notify"), f"\0sabir-packaging-{os.getpid()}"):
            manager = Manager(address)
            self.start(address)
            before = manager.wait_for("READY=1")
            need(before[0] == ["STATUS=recovering the message log"], f"before READY=1 came {before}")
            # Ready is what it says: the socket of the configuration answers at once.
            need(self.sabir("health", f"unix:{self.room}/run/sabir.sock") == "ready\n", "not ready after READY=1")
            manager.wait_for("WATCHDOG=1")
            manager.wait_for("WATCHDOG=1")
            self.process.send_signal(signal.SIGTERM)
            stop = manager.wait_for("STOPPING=1")[-1]
            need(any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in stop), f"the stop asks for no time: {stop}")
            status = ended(self.process, int(self.one("TimeoutStopSec")))
            need(status == 0, f"the stop ends with {status}:\n{(self.room / 'log').read_text()[-4000:]}")

    def it_needs_no_more_than_it_is_allowed(self):
        if not strace_works() or not shutil.which("systemd-analyze"):
            aloud("the system calls against SystemCallFilter: strace or systemd-analyze is missing, or may not trace")
            return
        trace, address = self.room / "trace", str(self.room / "notify-traced")
        manager = Manager(address)
        self.start(address, ["strace", "-f", "-qq", "-o", str(trace)])
        manager.wait_for("READY=1")
        self.sabir("pub", "/queue/traced", "kept", "--persistent", "--receipt")
        self.sabir("sub", "/queue/traced", "-n", "1")
        self.sabir("health", f"http://127.0.0.1:{self.http}")
        manager.wait_for("WATCHDOG=1")
        # strace passes on to nobody what it is sent.
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        ended(self.process, START_SECONDS)
        text = trace.read_text()
        # Before the broker itself runs, the helpers that change the user do.
        text = text[text.index(f'execve("{self.binary}"'):]
        used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", text, re.M))
        need({"futex", "sendto"} <= used, f"this trace cannot be right: {sorted(used)}")
        refused = used - self.allowed() - REFUSED_AND_FINE
        need(not refused, f"SystemCallFilter does not allow {sorted(refused)}")
        families = {f"AF_{name}" for name in re.findall(r"\bsocket\(AF_(\w+)", text)}
        more = families - set(self.one("RestrictAddressFamilies").split())
        need(not more, f"RestrictAddressFamilies does not allow {sorted(more)}")
        both = [line for line in text.splitlines() if "PROT_WRITE|PROT_EXEC" in line]
        both += [line for line in text.splitlines() if re.search(r"\bmprotect\(.*PROT_EXEC", line)]
        need(not both, f"MemoryDenyWriteExecute does not allow {both[:3]}")

    def allowed(self):
        """What SystemCallFilter adds up to."""
        listed = outcome(["systemd-analyze", "syscall-filter", "--no-pager"], dict(os.environ))[1]
        groups, name = {}, ""
        for line in listed.splitlines():
            if line.startswith("@"):
                name = line.strip()
                groups[name] = []
            elif line.strip() and not line.strip().startswith("#"):
                groups[name].append(line.strip())

        def calls(word):
            return set().union(*map(calls, groups[word])) if word.startswith("@") else {word}

        allowed = calls("@default")
        for value in self.unit["SystemCallFilter"]:
            listed = set().union(*map(calls, value.lstrip("~").split()))
            allowed = allowed - (listed - calls("@default")) if value.startswith("~") else allowed | listed
        return allowed

    def finish(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.room, ignore_errors=True)


def main():
    service = Service()
    try:
        return run_checks([
            ("service: systemd reads the unit and finds it hardened", service.systemd_reads_it),
            ("service: unit, configuration and user agree", service.it_agrees_with_its_configuration),
            ("service: a manager is told of readiness, life and the stop", service.it_tells_a_manager),
            ("service: the broker needs no more than it is allowed", service.it_needs_no_more_than_it_is_allowed),
        ])
    finally:
        service.finish()


if __name__ == "__main__":
    sys.exit(main())
