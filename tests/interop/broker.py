"""A broker process of our own: started on free ports, asked to stop, or killed."""

import functools
import os
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


def binary():
    """The broker to test: SABIR_BIN, else the release build."""
    return os.environ.get("SABIR_BIN") or str(ROOT / "target" / "release" / "sabir")


@functools.cache
def knows(key):
    """True when this build of the broker has the configuration key: older builds are tested as well."""
    try:
        asked = subprocess.run([binary(), "serve", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return False  # whoever starts it will say so
    return f"  {key}=" in asked.stdout


def free_ports(count):
    """Ports that nobody listens on, below the range from which the kernel gives ports to clients:
    while the broker is down, no client's own socket can sit on one of them."""
    found = []
    port = 20_000 + os.getpid() * 7 % 10_000
    while len(found) < count:
        port = port + 1 if port < 32_000 else 20_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


class BrokerDied(Exception):
    """The broker ended, or never listened."""


class Broker:
    """One data directory and the processes that serve it, one after the other."""

    def __init__(self, data_dir, log_path):
        # Web pages of a test come from the page port: the broker lets them connect.
        self.stomp_port, self.http_port, self.any_port, self.page_port, self.mqtt_port = free_ports(5)
        self.data_dir = str(data_dir)
        self.log_path = Path(log_path)
        self.settings = {}  # more keys of the configuration
        self.process = None

    def spawn(self):
        """Starts the process and does not wait."""
        settings = {
            "listeners.stomp": f"127.0.0.1:{self.stomp_port}",
            "listeners.http": f"127.0.0.1:{self.http_port}",
            "listeners.any": f"127.0.0.1:{self.any_port}",
            "http.allowed_origins": f"http://127.0.0.1:{self.page_port}",
            **self.settings,
        }
        if knows("listeners.mqtt"):
            settings["listeners.mqtt"] = f"127.0.0.1:{self.mqtt_port}"
        command = [binary(), "serve", "--data-dir", self.data_dir]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        with open(self.log_path, "ab") as log:
            try:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as problem:
                raise BrokerDied(f"{binary()} does not start: {problem}") from problem

    def await_listening(self):
        """Returns once the broker answers a CONNECT."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BrokerDied(f"the broker ended with status {self.process.returncode}:\n{self.log_tail()}")
            try:
                with socket.create_connection(("127.0.0.1", self.stomp_port), timeout=5) as probe:
                    probe.sendall(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0")
                    if probe.recv(4096).startswith(b"CONNECTED"):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise BrokerDied(f"the broker does not answer after {START_SECONDS} s:\n{self.log_tail()}")

    def start(self):
        self.spawn()
        self.await_listening()

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit status, or None when the broker had to be killed."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def log_tail(self, lines=40):
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])
