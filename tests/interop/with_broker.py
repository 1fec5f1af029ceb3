#!/usr/bin/env python3
"""with_broker.py LOG COMMAND...: runs a command against a fresh broker.

The broker has a data directory of its own and free ports, told to the command as
STOMP_PORT and HTTP_PORT. Ends with the command's status; a broker that dies, or
does not stop cleanly when asked, is a failure too.
"""

import os
import subprocess
import sys
import tempfile

from broker import Broker, BrokerDied


def main():
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
            "HTTP_PORT": str(broker.http_port),
        }
        try:
            status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
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
