"""take.py QUEUE FILE: appends what a queue gives to a file, each line after its number.

A line is acknowledged when it is written. What was not acknowledged when the broker
went away comes again, so the same number may be in the file twice.
"""

import logging
import os
import sys
import threading
import time

import stomp

PORT = int(os.environ.get("STOMP_PORT", "61613"))
logging.getLogger("stomp.py").setLevel(logging.CRITICAL)  # a broker that is away is no news here


class Worker(stomp.ConnectionListener):
    """Writes a line, then acknowledges it."""

    def __init__(self, connection, path):
        self.connection = connection
        self.path = path
        self.file = None
        self.lost = threading.Event()

    def on_receipt(self, _frame):
        self.file = open(self.path, "a", encoding="utf-8")  # subscribed: from now on nothing is missed

    def on_message(self, frame):
        self.file.write(f"{frame.headers['number']}\t{frame.body}\n")
        self.file.flush()
        self.connection.ack(frame.headers["ack"])

    def on_disconnected(self):
        self.lost.set()


def main():
    queue, path = sys.argv[1:]
    while True:
        connection = stomp.Connection12([("127.0.0.1", PORT)])
        worker = Worker(connection, path)
        connection.set_listener("worker", worker)
        try:
            connection.connect(wait=True)
            settings = {"receipt": "subscribed", "activemq.prefetchSize": "100"}
            connection.subscribe(queue, id="1", ack="client-individual", headers=settings)
            worker.lost.wait()
        except (stomp.exception.StompException, OSError):
            time.sleep(0.2)  # the broker is away


main()
