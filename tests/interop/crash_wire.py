"""STOMP 1.2 on a bare socket, for the crash test.

A client library would hide what this test is about: which frames had been written,
and which answers had been read, when the broker died.
"""

import select
import socket


class Gone(Exception):
    """The connection is no more."""


class BrokerError(Exception):
    """The broker sent an ERROR frame, or nothing at all for too long."""


def frame(command, headers, body=b""):
    """One encoded frame."""
    lines = [command]
    for name, value in headers.items():
        escaped = str(value).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace(":", "\\c")
        lines.append(f"{name}:{escaped}")
    if body:
        lines.append(f"content-length:{len(body)}")
    return "\n".join(lines).encode() + b"\n\n" + body + b"\0"


def unescape(value):
    if "\\" not in value:
        return value
    parts = value.split("\\\\")
    return "\\".join(p.replace("\\n", "\n").replace("\\r", "\r").replace("\\c", ":") for p in parts)


class Wire:
    """One connection. Every method raises Gone when it breaks."""

    def __init__(self, port, client_id=None):
        self.buffer = b""
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError as problem:
            raise Gone from problem
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = "accept-version:1.2\nhost:/\n" + (f"client-id:{client_id}\n" if client_id else "")
        self.send(f"CONNECT\n{headers}\n\0".encode())
        command, answer, _ = self.read()
        if command != "CONNECTED":
            self.close()
            raise Gone(answer.get("message", command))

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as problem:
            raise Gone from problem

    def _parse(self):
        """The first whole frame of the buffer, or None."""
        start = 0
        while self.buffer[start:start + 1] == b"\n":
            start += 1
        if start:
            self.buffer = self.buffer[start:]
        end = self.buffer.find(b"\n\n")
        if end < 0:
            return None
        command, *lines = self.buffer[:end].decode().split("\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(unescape(name), unescape(value))
        if "content-length" in headers:
            stop = end + 2 + int(headers["content-length"])
            if len(self.buffer) <= stop:
                return None
        else:
            stop = self.buffer.find(b"\0", end + 2)
            if stop < 0:
                return None
        body = self.buffer[end + 2:stop]
        self.buffer = self.buffer[stop + 1:]
        if command == "ERROR":
            raise BrokerError(f"{headers.get('message')} {body[:200]!r}")
        return command, headers, body

    def _fill(self):
        try:
            data = self.socket.recv(65536)
        except TimeoutError as problem:
            raise BrokerError("not a byte within 30 s") from problem
        except OSError as problem:
            raise Gone from problem
        if not data:
            raise Gone
        self.buffer += data

    def read(self):
        """The next frame, however long it takes (30 s at most without a byte)."""
        while True:
            got = self._parse()
            if got:
                return got
            self._fill()

    def batch(self, seconds):
        """All frames that are here; waits up to `seconds` for the first."""
        got = []
        while True:
            one = self._parse()
            if one:
                got.append(one)
                continue
            if got:
                return got
            readable, _, _ = select.select([self.socket], [], [], seconds)
            if not readable:
                return got
            self._fill()

    def receipt(self, command, headers, body=b"", name="done"):
        """Sends a frame with a receipt and reads until that comes; returns the frames in between."""
        self.send(frame(command, {**headers, "receipt": name}, body))
        between = []
        while True:
            got = self.read()
            if got[0] == "RECEIPT" and got[1]["receipt-id"] == name:
                return between
            between.append(got)

    def close(self):
        self.socket.close()
