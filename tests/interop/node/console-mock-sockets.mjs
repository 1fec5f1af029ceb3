// The mock's WebSockets: as much STOMP, MQTT and JSON as is needed for one message to cross
// all three.
import { load } from './modules.mjs';

const { WebSocketServer } = load('ws');
const packets = load('mqtt-packet');

// Who listens to what; `take` hands one message over.
const listeners = new Set();
let number = 100;

const matches = (pattern, destination) => {
  const [want, have] = [pattern.split('://'), destination.split('://')];
  if (want[0] !== have[0]) return false;
  const [levels, names] = [want[1].split('.'), have[1].split('.')];
  const rest = levels.indexOf('>');
  return rest >= 0 ? levels.slice(0, rest).every((one, i) => one === '*' || one === names[i]) : levels.length === names.length && levels.every((one, i) => one === '*' || one === names[i]);
};

export const live = {
  publish(destination, message, delivered) {
    for (const one of [...listeners]) {
      if (!matches(one.pattern, destination)) continue;
      one.take(message);
      delivered(one.connection);
    }
  },
  count: (destination) => [...listeners].filter((one) => matches(one.pattern, destination)).length,
  who: (destination) => [...listeners].filter((one) => matches(one.pattern, destination)).map(({ connection, protocol }) => ({ connection, protocol })),
  cut(id) {
    for (const one of listeners) if (one.connection === id) one.socket.terminate();
  },
};

const text = (message) => (message.bodyBase64 !== undefined ? Buffer.from(message.bodyBase64, 'base64') : Buffer.from(typeof message.body === 'string' ? message.body : JSON.stringify(message.body ?? '')));
const listen = (socket, connection, protocol, pattern, take, id) => {
  const one = { socket, connection, protocol, pattern, take, id };
  listeners.add(one);
  return one;
};

const speak = {
  stomp(socket, id, broker) {
    const put = (command, headers, body = '') => socket.send(`${command}\n${Object.entries(headers).map(([key, value]) => `${key}:${value}\n`).join('')}\n${body}\0`);
    socket.on('message', (data) => {
      const [head, body = ''] = String(data).replace(/^\n+/, '').replace(/\0[\n]*$/, '').split(/\n\n([^]*)/);
      const [command, ...lines] = head.split('\n');
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]));
      if (command === 'CONNECT') {
        broker.opened(id, 'STOMP 1.2', null);
        put('CONNECTED', { version: '1.2', server: 'mock', 'heart-beat': '0,0' });
      } else if (command === 'SUBSCRIBE') {
        listen(socket, id, 'STOMP', headers.destination.replace(/^\/(queue|topic)\//, '$1://'), (message) => put('MESSAGE', {
          subscription: headers.id, 'message-id': message.id, destination: message.destination.replace(/^(\w+):\/\//, '/$1/'), ...message.properties, 'content-type': message.contentType ?? 'text/plain', 'content-length': text(message).length }, text(message)));
      } else if (command === 'SEND') {
        const { destination, 'content-type': contentType, 'content-length': _, receipt: __, ...properties } = headers;
        broker.send(destination.replace(/^\/(queue|topic)\//, '$1://'), { body, contentType, properties }, id);
      }
      if (headers.receipt) put('RECEIPT', { 'receipt-id': headers.receipt });
    });
  },
  mqtt(socket, id, broker) {
    const parser = packets.parser({ protocolVersion: 5 });
    const put = (packet) => socket.send(packets.generate(packet, { protocolVersion: 5 }));
    socket.on('message', (data) => parser.parse(data));
    parser.on('packet', (packet) => {
      if (packet.cmd === 'connect') {
        broker.opened(id, 'MQTT 5.0', packet.clientId);
        put({ cmd: 'connack', reasonCode: 0, sessionPresent: false });
      } else if (packet.cmd === 'subscribe') {
        for (const { topic } of packet.subscriptions) {
          listen(socket, id, 'MQTT', `topic://${topic.replaceAll('/', '.')}`, (message) => put({ cmd: 'publish', qos: 0, topic: message.destination.replace('topic://', '').replaceAll('.', '/'), payload: text(message),
            properties: { contentType: message.contentType, userProperties: message.properties ?? {} } }));
        }
        put({ cmd: 'suback', messageId: packet.messageId, granted: packet.subscriptions.map(() => 1) });
      } else if (packet.cmd === 'publish') {
        broker.send(`topic://${packet.topic.replaceAll('/', '.')}`, { body: String(packet.payload), contentType: packet.properties?.contentType, properties: { ...packet.properties?.userProperties } }, id);
        if (packet.qos === 1) put({ cmd: 'puback', messageId: packet.messageId, reasonCode: 0 });
      } else if (packet.cmd === 'pingreq') put({ cmd: 'pingresp' });
    });
  },
  json(socket, id, broker) {
    const put = (object) => socket.send(`${JSON.stringify(object)}\n`);
    const mine = new Map();
    socket.on('message', (data) => {
      for (const line of String(data).split('\n').filter(Boolean)) {
        const asked = JSON.parse(line);
        const { op, ref } = asked;
        const subscribed = asked.id;
        try {
          if (op === 'connect') {
            broker.opened(id, 'JSON', asked.clientId ?? null);
            put({ op: 'connected', ref, server: 'mock', session: 'mock', heartbeat: 0 });
          } else if (op === 'ping') put({ op: 'pong', ref });
          else if (op === 'subscribe') {
            const take = (message) => put({ op: 'message', id: subscribed, message });
            put({ op: 'ok', ref, credit: 100 });
            if (asked.browse) {
              broker.browse(asked.destination).forEach(take);
              put({ op: 'closed', id: subscribed });
            } else mine.set(subscribed, listen(socket, id, 'JSON', asked.destination, take));
          } else if (op === 'unsubscribe') {
            listeners.delete(mine.get(subscribed));
            put({ op: 'ok', ref });
          } else if (op === 'send') {
            const { destination, ...message } = asked.message ?? asked;
            put({ op: 'ok', ref, ...broker.send(destination, message, id) });
          } else throw Object.assign(new Error(`there is no op ${op}`), { code: 'unknown-command' });
        } catch (error) {
          put({ op: 'error', ref, code: error.code ?? 'internal', message: error.message });
        }
      }
    });
  },
};

export function attach(server, broker) {
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
  server.on('upgrade', (request, socket, head) => {
    const kind = { '/stomp': 'stomp', '/mqtt': 'mqtt', '/ws': 'json' }[request.url.split('?')[0]];
    if (!kind) return socket.end('HTTP/1.1 404 Not Found\r\n\r\n');
    return sockets.handleUpgrade(request, socket, head, (open) => {
      const id = number += 1;
      speak[kind](open, id, broker);
      open.on('close', () => {
        for (const one of listeners) if (one.socket === open) listeners.delete(one);
        broker.closed(id);
      });
    });
  });
}
