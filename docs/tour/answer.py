"""answer.py QUEUE FILE: answers one question that somebody asked, over whatever protocol, and ends.

The question names where its answer should go and carries a mark to know it by; both are
headers here, whatever they were called where the question was asked. FILE appears when
it is ready.
"""

import os
import sys
import threading

import stomp

PORT = int(os.environ.get("STOMP_PORT", "61613"))


class Worker(stomp.ConnectionListener):
    """Answers the first question."""

    def __init__(self, connection, path):
        self.connection = connection
        self.path = path
        self.done = threading.Event()

    def on_receipt(self, _frame):
        open(self.path, "w", encoding="utf-8").close()  # subscribed: from now on nothing is missed

    def on_message(self, frame):
        question = frame.headers
        headers = {"correlation-id": question["correlation-id"], "persistent": "true"}
        self.connection.send(question["reply-to"], f"{frame.body} degrees, noted", headers=headers)
        self.connection.ack(question["ack"])
        self.done.set()


connection = stomp.Connection12([("127.0.0.1", PORT)])
worker = Worker(connection, sys.argv[2])
connection.set_listener("worker", worker)
connection.connect(wait=True)
connection.subscribe(sys.argv[1], id="1", ack="client-individual", headers={"receipt": "subscribed"})
worker.done.wait()
connection.disconnect()
