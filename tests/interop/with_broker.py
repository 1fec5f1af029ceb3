#!/usr/bin/env python3
"""with_broker.py LOG COMMAND...: runs a command against a fresh broker.

The broker has a data directory of its own and free ports, told to the command as
STOMP_PORT, MQTT_PORT and HTTP_PORT; web pages served from PAGE_PORT may connect to
it. Ends with the command's status; a broker that dies, or does not stop cleanly when
asked, is a failure too, and so is a command that takes more than INTEROP_LIMIT
seconds (900).
"""

import os
import signal
import subprocess
import sys
import tempfile

from broker import Broker, BrokerDied


def run(command, environment, seconds):
    """The command's status; after too long it is killed with all it started."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            print(f"FAIL not done within {seconds:.0f} s: {' '.join(command)}", flush=True)
            return 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def main():
    # So that a broker and a browser never outlive whoever is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    log, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="sabir-interop-") as data_dir:
        broker = Broker(data_dir, log)
        try:
            broker.start()
        except BrokerDied as problem:
            print(f"FAIL start of the broker: {problem}", flush=True)
            broker.stop()
            return 1
        environment = {
            **os.environ,
            "STOMP_HOST": "127.0.0.1",
            "STOMP_PORT": str(broker.stomp_port),
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": str(broker.mqtt_port),
            "HTTP_PORT": str(broker.http_port),
            "PAGE_PORT": str(broker.page_port),
        }
        try:
            status = run(command, environment, float(os.environ.get("INTEROP_LIMIT", "900")))
        finally:
            alive = broker.process.poll() is None
            stopped = broker.stop()
        if not alive or stopped != 0:
            how = "ended during the test" if not alive else "did not stop cleanly"
            print(f"FAIL the broker {how}, status {stopped}:\n{broker.log_tail()}", flush=True)
            return 1
        return status


if __name__ == "__main__":
    sys.exit(main())
