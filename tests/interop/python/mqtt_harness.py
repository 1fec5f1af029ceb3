"""A paho-mqtt client whose packets are awaited, for paho_test.py and paho_v5.py.

MQTT_HOST and MQTT_PORT say where the broker is, INTEROP_WAIT how many seconds
anything may take, BROKER=mosquitto that it is the peer we compare ourselves with.
"""

import collections
import os
import queue
import socket
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST = os.environ.get("MQTT_HOST", "127.0.0.1")
PORT = int(os.environ.get("MQTT_PORT", "1883"))
BROKER = os.environ.get("BROKER", "sabir")
WAIT = float(os.environ.get("INTEROP_WAIT", "30"))
RUN = f"p{os.getpid()}x{int(time.time() * 1000) % 1_000_000}"
PROTOCOLS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5": paho.MQTTv5}
FOR_EVER = 0xFFFF_FFFF

Gone = collections.namedtuple("Gone", "by_server code")
open_clients = []
_numbers = iter(range(1, 1_000_000))


class Failed(Exception):
    """A check that did not hold."""


def expect(got, wanted, what):
    """Fails with both sides shown, cut to a readable length."""
    if got != wanted:
        raise Failed(f"{what}: expected {str(wanted)[:200]!r}, got {str(got)[:200]!r}")


def fresh_id():
    """A client id that MQTT 3.1 takes as well: at most 23 characters."""
    return f"{RUN}-{next(_numbers)}"


def topic(version, *levels):
    """A topic of this run, this version and this check."""
    return "/".join([RUN, version, *levels])


def properties(packet, values):
    """paho's Properties from names and values; None when there are none."""
    if not values:
        return None
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Will:
    """What is published when a connection breaks."""

    def __init__(self, topic, payload=b"gone", qos=1, retain=False, **values):
        self.topic, self.payload, self.qos, self.retain, self.values = topic, payload, qos, retain, values


class Client:
    """A connection that is closed when its check is over, whatever happened."""

    def __init__(self, version, client_id=None, *, clean=True, will=None, keepalive=60, manual_ack=False,
                 refused=False, **values):
        self.version = version
        self.client_id = fresh_id() if client_id is None else client_id
        self.messages, self.greetings, self.gone = queue.Queue(), queue.Queue(), queue.Queue()
        self.answers = {"subscribe": {}, "unsubscribe": {}, "publish": {}}
        self.changed = threading.Condition()
        self.taken, self.manual_ack = False, manual_ack
        options = {} if version == "5" else {"clean_session": clean}
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, self.client_id, protocol=PROTOCOLS[version],
                                manual_ack=manual_ack, reconnect_on_failure=False, **options)
        self.paho.on_connect = lambda _c, _u, flags, code, props: self.greetings.put((flags, code, props))
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_disconnect = lambda _c, _u, flags, code, _p: self._end(
            Gone(flags.is_disconnect_packet_from_server, code.value))
        self.paho.on_subscribe = lambda _c, _u, mid, codes, _p: self._answer("subscribe", mid, codes)
        self.paho.on_unsubscribe = lambda _c, _u, mid, codes, _p: self._answer("unsubscribe", mid, codes)
        self.paho.on_publish = lambda _c, _u, mid, code, _p: self._answer("publish", mid, code)
        if will:
            self.paho.will_set(will.topic, will.payload, will.qos, will.retain,
                               properties("WILLMESSAGE", will.values) if version == "5" else None)
        open_clients.append(self)
        later = {"clean_start": clean, "properties": properties("CONNECT", values)} if version == "5" else {}
        self.paho.connect(HOST, PORT, keepalive, **later)
        self.paho.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.paho.loop_start()
        try:
            flags, self.code, self.connack = self.greetings.get(timeout=WAIT)
        except queue.Empty:
            raise Failed(f"no CONNACK within {WAIT} s") from None
        self.present = flags.session_present
        if not refused and self.code.value != 0:
            raise Failed(f"CONNACK refuses: {self.code}")

    def _end(self, gone):
        with self.changed:
            self.gone.put(gone)
            self.changed.notify_all()

    def _answer(self, kind, mid, answer):
        with self.changed:
            self.answers[kind][mid] = answer
            self.changed.notify_all()

    def _await(self, kind, mid):
        with self.changed:
            if not self.changed.wait_for(lambda: mid in self.answers[kind] or not self.gone.empty(), WAIT):
                raise Failed(f"no answer to {kind} within {WAIT} s")
            if mid not in self.answers[kind]:
                raise Failed(f"disconnected before the answer to {kind}: {self.gone.queue[0]}")
            return self.answers[kind].pop(mid)

    def take(self, seconds=None):
        """The next message."""
        self.taken = True
        try:
            return self.messages.get(timeout=seconds or WAIT)
        except queue.Empty:
            gone = self.gone.queue[0] if self.gone.queue else "still connected"
            raise Failed(f"no message within {seconds or WAIT} s, {gone}") from None

    def payloads(self, count):
        return [self.take().payload for _ in range(count)]

    def quiet(self):
        """Fails when a message is here; the caller has made sure that none is on its way."""
        if not self.messages.empty():
            raise Failed(f"a message too many: {self.messages.get().payload[:60]!r}")

    def send(self, topic, payload=b"", qos=0, retain=False, wait=True, **values):
        """Publishes; with `wait`, returns the reason code of the end of the exchange (QoS 1 and 2)."""
        info = self.paho.publish(topic, payload, qos, retain, properties("PUBLISH", values))
        # A broker that closed at once shows as an error here, or at the next call.
        if info.rc != paho.MQTT_ERR_SUCCESS and self.gone.empty():
            raise Failed(f"publish: {paho.error_string(info.rc)}")
        return self.settled(info.mid) if wait and qos else info.mid

    def settled(self, mid):
        return self._await("publish", mid).value

    def subscribe(self, filter, qos=0, *, no_local=False, as_published=False, handling=0, wait=True, **values):
        """Subscribes and returns the code of the SUBACK."""
        if self.version == "5":
            options = SubscribeOptions(qos, no_local, as_published, handling)
            rc, mid = self.paho.subscribe(filter, options=options, properties=properties("SUBSCRIBE", values))
        else:
            rc, mid = self.paho.subscribe(filter, qos)
        expect(rc, paho.MQTT_ERR_SUCCESS, f"subscribe {filter}")
        return self._await("subscribe", mid)[0].value if wait else mid

    def subscribe_many(self, *pairs):
        """Several filters in one SUBSCRIBE; the codes in their order."""
        if self.version == "5":
            pairs = [(filter, SubscribeOptions(qos)) for filter, qos in pairs]
        rc, mid = self.paho.subscribe(list(pairs))
        expect(rc, paho.MQTT_ERR_SUCCESS, "subscribe")
        return [code.value for code in self._await("subscribe", mid)]

    def unsubscribe(self, *filters):
        rc, mid = self.paho.unsubscribe(list(filters))
        expect(rc, paho.MQTT_ERR_SUCCESS, "unsubscribe")
        codes = self._await("unsubscribe", mid)
        return [code.value for code in codes] if self.version == "5" else []

    def ack(self, message):
        self.paho.ack(message.mid, message.qos)

    def closed(self):
        """How the connection ended."""
        try:
            return self.gone.get(timeout=WAIT)
        except queue.Empty:
            raise Failed(f"still connected after {WAIT} s") from None

    def settle(self):
        """Returns when the broker has every acknowledgement of what was taken: two round trips are behind it."""
        if self.taken and not self.manual_ack:
            self.send(f"{RUN}/nobody", b"", 2)

    def close(self, code=None, **values):
        """DISCONNECT, then the end of the socket."""
        self.settle()
        self.paho.disconnect(code, properties("DISCONNECT", values))
        self.closed()
        self.paho.loop_stop()

    def cut(self):
        """Drops the socket without a word."""
        self.settle()
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        self.closed()
        self.paho.loop_stop()

    def raw(self, data):
        """Bytes that the library would not send; nothing else of ours may be on its way."""
        self.paho.socket().sendall(data)

    def raw_answer(self, kind, mid):
        """The answer to what was sent raw, or None when the connection ends instead."""
        with self.changed:
            if not self.changed.wait_for(lambda: mid in self.answers[kind] or not self.gone.empty(), WAIT):
                raise Failed(f"neither an answer to {kind} nor an end within {WAIT} s")
            return self.answers[kind].pop(mid, None)

    def freeze(self):
        """Says nothing more, hears nothing more, and keeps the socket open."""
        self.paho.loop_stop()


def persistent(version, client_id, *, clean=False, **values):
    """A connection whose session outlives it."""
    if version == "5":
        values.setdefault("SessionExpiryInterval", 3600)
    return Client(version, client_id, clean=clean, **values)


def forget(version, client_id):
    """Ends a session for good."""
    Client(version, client_id, clean=True).close()


def release():
    """Closes what a check left open."""
    for client in open_clients:
        sock = client.paho.socket()
        if sock is not None:
            client.paho.disconnect()
            client.paho.loop_stop()
            # A client whose loop was stopped has not closed its socket.
            if client.paho.socket() is not None:
                client.paho.socket().close()
    open_clients.clear()
