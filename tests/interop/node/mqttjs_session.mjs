// Steps of mqtt_restart.py for MQTT.js: `begin` subscribes in a lasting session and leaves; `resume COUNT` comes back,
// says whether the session was there, and prints what waited in it.
import { load, mqttHost, mqttPort, wait } from './modules.mjs';

const mqtt = load('mqtt');
const [step, id, topic, count = '0'] = process.argv.slice(2);
const client = mqtt.connect({
  host: mqttHost, port: mqttPort, protocolVersion: 5, clientId: id, clean: false, reconnectPeriod: 0,
  properties: { sessionExpiryInterval: 600 },
});
const got = [];
setTimeout(() => { console.error(`not done within ${wait} ms`); process.exit(1); }, wait).unref();
client.on('error', (problem) => { console.error(String(problem)); process.exit(1); });
const leave = () => client.end(false, () => process.exit(0));
client.on('connect', ({ sessionPresent }) => {
  if (step === 'begin') client.subscribe(topic, { qos: 2 }, leave);
  else console.log(`present ${sessionPresent}`);
});
client.on('message', (_, payload) => {
  got.push(String(payload));
  if (got.length === Number(count)) {
    console.log(got.join(' '));
    leave();
  }
});
