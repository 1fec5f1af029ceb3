"""send.py FILE DESTINATION: sends every line of a file, and ends when each one is confirmed.

A receipt means that the line is safe. Lines whose receipt did not come before the
broker went away are sent again when it is back; their number tells them apart.
"""

import collections
import logging
import os
import sys
import threading
import time

import stomp

PORT = int(os.environ.get("STOMP_PORT", "61613"))
logging.getLogger("stomp.py").setLevel(logging.CRITICAL)  # a broker that is away is no news here
WINDOW = 200  # lines on their way at a time


class Receipts(stomp.ConnectionListener):
    """Keeps what is on its way, by line number."""

    def __init__(self):
        self.flying = {}
        self.lost = False
        self.change = threading.Condition()

    def on_receipt(self, frame):
        with self.change:
            self.flying.pop(frame.headers["receipt-id"], None)
            self.change.notify()

    def on_disconnected(self):
        with self.change:
            self.lost = True
            self.change.notify()

    def wait_until_below(self, count):
        with self.change:
            self.change.wait_for(lambda: self.lost or len(self.flying) < count)


def send(lines, destination):
    """Sends until the lines are confirmed or the connection is lost; returns those to send again."""
    receipts = Receipts()
    connection = stomp.Connection12([("127.0.0.1", PORT)])
    connection.set_listener("receipts", receipts)
    try:
        connection.connect(wait=True)
        while lines and not receipts.lost:
            number, line = lines[0]
            receipts.flying[number] = line
            lines.popleft()
            connection.send(destination, line, headers={"number": number, "persistent": "true", "receipt": number})
            receipts.wait_until_below(WINDOW)
        receipts.wait_until_below(1)
        if not receipts.lost:
            connection.disconnect()
    except (stomp.exception.StompException, OSError):
        time.sleep(0.2)  # the broker is away
    lines.extendleft(reversed(receipts.flying.items()))


def main():
    path, destination = sys.argv[1:]
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = collections.deque((str(n), line.removesuffix("\n")) for n, line in enumerate(file, 1))
    count = len(lines)
    while lines:
        send(lines, destination)
    print(f"{count} lines sent, {count} receipts")


main()
