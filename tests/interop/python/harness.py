"""A stomp.py connection whose frames are awaited, for stomp_py_test.py.

STOMP_HOST and STOMP_PORT say where the broker is, INTEROP_WAIT how many seconds
anything may take, BROKER=activemq that it is the peer we compare ourselves with.
"""

import os
import queue
import time

import stomp

HOST = os.environ.get("STOMP_HOST", "127.0.0.1")
PORT = int(os.environ.get("STOMP_PORT", "61613"))
BROKER = os.environ.get("BROKER", "sabir")
WAIT = float(os.environ.get("INTEROP_WAIT", "30"))
RUN = f"py{os.getpid()}x{int(time.time() * 1000) % 1_000_000_000}"
CLASSES = {
    "1.0": stomp.StompConnection10,
    "1.1": stomp.StompConnection11,
    "1.2": stomp.StompConnection12,
}


class Failed(Exception):
    """A check that did not hold."""


def expect(got, wanted, what):
    """Fails with both sides shown, cut to a readable length."""
    if got != wanted:
        raise Failed(f"{what}: expected {str(wanted)[:200]!r}, got {str(got)[:200]!r}")


class Client(stomp.ConnectionListener):
    """A connection whose frames are awaited instead of handled in call-backs."""

    def __init__(self, version, client_id=None, heart_beats=None, accept=None):
        self.version = version
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.errors = queue.Queue()
        self.beats = queue.Queue()
        self.gone = queue.Queue()
        self.number = 0
        options = {"heartbeats": heart_beats} if heart_beats else {}
        self.stomp = CLASSES[version]([(HOST, PORT)], auto_decode=False, reconnect_attempts_max=1,
                                      **options)
        if accept:
            self.stomp.version = accept
        self.stomp.set_listener("test", self)
        self.greetings = queue.Queue()
        headers = {"client-id": client_id} if client_id else {}
        self.stomp.connect(wait=True, headers=headers)
        self.connected = self.greetings.get(timeout=WAIT)

    def on_connected(self, frame):
        self.greetings.put(frame.headers)

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.put(frame)

    def on_heartbeat(self):
        self.beats.put(1)

    def on_disconnected(self):
        self.gone.put(1)

    def take(self):
        """The next message."""
        try:
            return self.messages.get(timeout=WAIT)
        except queue.Empty:
            error = self.errors.queue[0].headers if self.errors.queue else "none"
            raise Failed(f"no message within {WAIT} s, ERROR frame: {error}") from None

    def take_bodies(self, count):
        return [self.take().body for _ in range(count)]

    def receipt(self):
        """A fresh receipt name, for `await_receipt`."""
        self.number += 1
        return f"r{self.number}"

    def await_receipt(self, name):
        try:
            got = self.receipts.get(timeout=WAIT)
        except queue.Empty:
            error = self.errors.queue[0].headers if self.errors.queue else "none"
            raise Failed(f"no receipt within {WAIT} s, ERROR frame: {error}") from None
        expect(got, name, "receipt-id")

    def send(self, destination, body, wait=False, **headers):
        headers = {name.replace("__", "-"): value for name, value in headers.items()}
        if wait:
            headers["receipt"] = self.receipt()
        self.stomp.send(destination, body, headers=headers)
        if wait:
            self.await_receipt(headers["receipt"])

    def subscribe(self, destination, ack="auto", id="1", **headers):
        receipt = self.receipt()
        headers = {name.replace("__", "-").replace("_dot_", "."): value for name, value in headers.items()}
        self.stomp.subscribe(destination, id=id, ack=ack, headers={**headers, "receipt": receipt})
        self.await_receipt(receipt)

    def unsubscribe(self, id="1", headers=None):
        receipt = self.receipt()
        self.stomp.unsubscribe(id=id, headers={**(headers or {}), "receipt": receipt})
        self.await_receipt(receipt)

    def _settle(self, verb, message, transaction, wait, **headers):
        receipt = self.receipt() if wait else None
        call = getattr(self.stomp, verb)
        if self.version == "1.0":
            call(message.headers["message-id"], transaction=transaction, receipt=receipt, **headers)
        elif self.version == "1.1":
            call(message.headers["message-id"], message.headers["subscription"], transaction=transaction,
                 receipt=receipt, **headers)
        else:
            call(message.headers["ack"], transaction=transaction, receipt=receipt, **headers)
        if wait:
            self.await_receipt(receipt)

    def ack(self, message, transaction=None, wait=False):
        self._settle("ack", message, transaction, wait)

    def nack(self, message, wait=False, **headers):
        self._settle("nack", message, None, wait, **headers)

    def begin(self, name):
        self.stomp.begin(name)
        return name

    def end(self, verb, transaction):
        """Commits or aborts and waits for the receipt."""
        receipt = self.receipt()
        getattr(self.stomp, verb)(transaction, receipt=receipt)
        self.await_receipt(receipt)

    def close(self):
        """DISCONNECT with a receipt; returns when the receipt is here."""
        receipt = self.receipt()
        self.stomp.disconnect(receipt=receipt)
        self.await_receipt(receipt)

    def cut(self):
        """Drops the socket without a word."""
        self.stomp.transport.disconnect_socket()
        self.gone.get(timeout=WAIT)


def name(kind, *parts):
    return f"/{kind}/{RUN}." + ".".join(parts)


def tag(version):
    return "v" + version.replace(".", "")
