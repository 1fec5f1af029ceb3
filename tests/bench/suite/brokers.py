"""Brokers that are started with a fresh folder and stopped again: our own, and the peers of tests/bench/peers."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import machine

PEERS = Path(__file__).resolve().parents[1] / "peers"
PEER_NAMES = ["activemq", "rabbitmq", "mosquitto", "mosquitto-nodelay", "nats", "rumqttd"]
START_SECONDS = 60
# Below the range that Linux gives to clients, and away from the ports of the peers and of a broker in use.
SABIR_PORTS = {"stomp": 27013, "mqtt": 27083, "http": 27061, "any": 27016}


class CannotStart(Exception):
    """A broker did not come up; the text says what it said."""


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Sabir:
    """The binary under test."""

    name = "sabir"
    durability = "a receipt is sent when the message is synced (store.durability = fsync, the default)"
    login = passcode = None

    def __init__(self, binary, room):
        self.binary, self.room = str(binary), room
        self.ports = dict(SABIR_PORTS)
        self.process = self.folder = self.pid = self.command = None
        self.version = self._run("--version").split()[-1]

    def _run(self, *arguments):
        return subprocess.run([self.binary, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    def start(self, environment=None):
        """Returns the seconds until it accepted connections. Its configuration is the default but for ports and folder."""
        del environment  # that of a peer's script
        taken = [name for name, port in self.ports.items() if answers(port)]
        if taken:
            raise CannotStart(f"sabir: something else listens on {', '.join(taken)}")
        self.folder = tempfile.mkdtemp(prefix="sabir-bench-", dir=self.room)
        command = [self.binary, "serve", "--data-dir", f"{self.folder}/data"]
        for name, port in self.ports.items():
            command += ["--set", f"listeners.{name}=127.0.0.1:{port}"]
        self.command = command
        with open(f"{self.folder}/log", "ab") as log:
            began = time.perf_counter()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid
        for port in (self.ports["mqtt"], self.ports["stomp"]):
            while not answers(port):
                if self.process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                    said = Path(self.folder, "log").read_text(errors="replace")[-2000:]
                    self.stop()
                    raise CannotStart(f"sabir: {said}")
                time.sleep(0.0002)
        return time.perf_counter() - began

    def restart_command(self):
        """For `sh`: stops the broker, starts it on the same data and prints the number of its process."""
        start = " ".join(shlex.quote(part) for part in self.command)
        return (f"kill {self.pid}; while grep -qs '^State:.[^Z]' /proc/{self.pid}/status; do sleep 0.01; done; "
                f"{start} >>{self.folder}/log 2>&1 </dev/null & echo $! | tee {self.folder}/pid")

    def stop(self):
        restarted = Path(self.folder or "/nowhere", "pid")
        if restarted.exists():
            end(int(restarted.read_text()))
            restarted.unlink()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = self.pid = None
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


class Peer:
    """A broker of somebody else, handled by its script."""

    def __init__(self, name, room):
        self.name, self.room = name, room
        self.script = str(PEERS / f"{name}.sh")
        self.pid, self.is_ours = None, False
        self.ports = {key: int(port) for key, port in re.findall(r"(\w+)=(\d+)", self._ask("ports"))}
        self.version = self._ask("version")
        self.durability = self._ask("durability")
        # RabbitMQ has a user by default; the other peers let everybody in.
        self.login = self.passcode = "guest" if name == "rabbitmq" else None

    def _ask(self, verb, environment=None):
        environment = {**os.environ, "PEER_ROOM": self.room, **(environment or {})}
        done = subprocess.run([self.script, verb], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0 and verb not in ("version", "stop"):
            raise CannotStart(done.stderr.strip() or f"{self.name}: {verb} failed")
        return done.stdout.strip()

    def is_installed(self):
        return self.version != ""

    def install(self):
        self._ask("install")
        self.version = self._ask("version")

    def start(self, environment=None):
        """Returns the seconds until it accepted connections on every port, to about 30 ms."""
        # Before it is there: whoever is told to stop while it starts stops it all the same.
        self.is_ours = True
        began = time.perf_counter()
        self.pid = int(self._ask("start", environment))
        return time.perf_counter() - began

    def restart_command(self):
        """Peers are not restarted."""
        return None

    def stop(self):
        if self.is_ours:
            self._ask("stop")
        self.pid, self.is_ours = None, False


def end(pid):
    """Ends a process of ours that is not our child."""
    try:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + START_SECONDS
        while machine.resident(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
    except OSError:
        return  # it has ended
