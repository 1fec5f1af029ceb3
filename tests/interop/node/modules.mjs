// Where the npm clients live: tests/interop/setup installs them outside the tree.
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import path from 'node:path';

const here = path.dirname(fileURLToPath(import.meta.url));
export const room = path.resolve(here, '../../../target/interop/node');
export const load = createRequire(pathToFileURL(path.join(room, 'package.json')));

export const host = process.env.STOMP_HOST ?? '127.0.0.1';
export const port = Number(process.env.STOMP_PORT ?? 61613);
export const httpPort = Number(process.env.HTTP_PORT ?? 8161);
export const broker = process.env.BROKER ?? 'sabir';
export const wait = Number(process.env.INTEROP_WAIT ?? 30) * 1000;
export const run = (prefix) => `${prefix}${process.pid}x${Date.now() % 1_000_000_000}`;
export const mqttHost = process.env.MQTT_HOST ?? '127.0.0.1';
export const mqttPort = Number(process.env.MQTT_PORT ?? 1883);
// Set when the broker speaks MQTT over WebSocket: the path, as in ws://127.0.0.1:8161/mqtt.
export const mqttPath = process.env.MQTT_WEBSOCKET ?? '';
