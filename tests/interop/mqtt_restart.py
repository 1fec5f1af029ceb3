#!/usr/bin/env python3
"""mqtt_restart.py: lasting sessions of aiomqtt, mosquitto_sub and MQTT.js over a `kill -9` of the broker.

Each subscribes with QoS 2 and leaves; messages are acknowledged to their publisher; the broker is killed and started
again; each comes back, finds its session, and gets every message once, those of each QoS in order. One line per check, then a summary.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker import Broker

FOLDER = Path(__file__).resolve().parent
COUNT = 200
EXPECTED = [str(number) for number in range(COUNT)]
WAIT = 60


def command(broker, *words):
    """Runs a program to its end; what it printed, by lines."""
    environment = {**os.environ, "MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(broker.mqtt_port)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=WAIT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.split("\n")[:-1]


class Aiomqtt:
    """The library's client, in version 3.1.1 or 5."""

    def __init__(self, version):
        self.version, self.name = version, f"aiomqtt {version}"

    def client(self, broker):
        settings = {"clean_session": False, "protocol": ProtocolVersion.V311}
        if self.version == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600
            settings = {"clean_start": False, "properties": properties, "protocol": ProtocolVersion.V5}
        return aiomqtt.Client("127.0.0.1", broker.mqtt_port, identifier=f"aio{self.version[0]}", timeout=WAIT, **settings)

    async def subscribe(self, broker):
        async with self.client(broker) as client:
            await client.subscribe("restart/#", 2)

    def begin(self, broker):
        asyncio.run(self.subscribe(broker))

    async def collect(self, broker):
        # Coming back does not subscribe again: what arrives is the session's.
        async with self.client(broker) as client, asyncio.timeout(WAIT):
            got = []
            async for message in client.messages:
                got.append(message.payload.decode())
                if len(got) == COUNT:
                    return got
        return got

    def resume(self, broker):
        return asyncio.run(self.collect(broker))


class Mosquitto:
    """mosquitto_sub."""

    name = "mosquitto_sub 5"

    def words(self, broker, *more):
        return ("mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", str(broker.mqtt_port), "-i", "mosq", "-c",
                "-x", "600", "-q", "2", "-t", "restart/#", *more)

    def begin(self, broker):
        command(broker, *self.words(broker, "-E"))

    def resume(self, broker):
        return command(broker, *self.words(broker, "-C", str(COUNT), "-W", str(WAIT)))


class MqttJs:
    """MQTT.js under Node."""

    name = "mqtt.js 5"

    def words(self, step, *more):
        return ("node", str(FOLDER / "node" / "mqttjs_session.mjs"), step, "mqttjs", "restart/#", *more)

    def begin(self, broker):
        command(broker, *self.words("begin"))

    def resume(self, broker):
        present, got = command(broker, *self.words("resume", str(COUNT)))
        if present != "present true":
            raise RuntimeError(f"the session is gone: {present}")
        return got.split()


async def publish(broker):
    """Half in each of QoS 1 and 2; returns when all are acknowledged."""
    async with aiomqtt.Client("127.0.0.1", broker.mqtt_port, timeout=WAIT) as client:
        for number in range(COUNT):
            await client.publish("restart/a", EXPECTED[number], 1 + number % 2)


def in_order(got):
    """Each once; those of one QoS in their order, for a client shows QoS 2 only when it is released (4.6)."""
    return len(got) == COUNT and all(
        [number for number in got if int(number) % 2 == odd] == EXPECTED[odd::2] for odd in (0, 1)
    )


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="sabir-restart-") as data_dir:
        broker = Broker(data_dir, os.path.join(data_dir, "log"))
        broker.start()
        try:
            peers = [Aiomqtt("3.1.1"), Aiomqtt("5"), Mosquitto(), MqttJs()]
            for peer in peers:
                peer.begin(broker)
            asyncio.run(publish(broker))
            broker.kill()
            broker.start()
            for peer in peers:
                try:
                    got = peer.resume(broker)
                    problem = "" if in_order(got) else f"{len(got)} messages: {' '.join(got)[:200]}"
                except Exception as trouble:  # whatever a client throws is a failed check
                    problem = f"{type(trouble).__name__} {trouble}"
                failed += bool(problem)
                passed += not problem
                print(f"FAIL {peer.name}: {problem}" if problem else f"ok   {peer.name} over kill -9", flush=True)
        finally:
            broker.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
