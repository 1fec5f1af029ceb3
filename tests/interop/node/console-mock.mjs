#!/usr/bin/env node
// A stand-in for the broker's HTTP side, so that the console can be worked on and tested
// without building one: `node console-mock.mjs [PORT] [QUEUES]`. It keeps messages in
// memory, speaks as much STOMP, MQTT and JSON as the console's own clients do, and has a
// hundred thousand queues by default. `MOCK_USER=name:password` makes it ask for a login.
import { createServer } from 'node:http';
import { readFileSync, existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { attach, live } from './console-mock-sockets.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const port = Number(process.argv[2] ?? 8161);
const many = Number(process.argv[3] ?? 100_000);
const [mayUser, mayPassword] = (process.env.MOCK_USER ?? '').split(':');
const began = Date.now();
const totals = { published: 0, delivered: 0, acknowledged: 0, redelivered: 0, expired: 3, deadLettered: 0, discarded: 0, refused: 0 };

// -- what there is ---------------------------------------------------------------------

const queues = new Map();
const topics = new Map();
const subscriptions = new Map();
const webhooks = new Map();
const connections = new Map();
let sequence = 1000;
let ids = 0;

class Refused extends Error {
  constructor(status, code, detail, field) {
    super(detail);
    Object.assign(this, { status, code, field });
  }
}

function queue(name, more = {}) {
  const found = queues.get(name);
  if (found) return found;
  const made = { name, destination: `queue://${name}`, kind: 'queue', durability: 'fsync', messages: [], consumers: 0, enqueued: 0, delivered: 0, acknowledged: 0, redelivered: 0,
    expired: 0, deadLettered: 0, paused: false, declared: false, leased: new Map(), ...more };
  queues.set(name, made);
  sorted = undefined;
  return made;
}
let sorted;
const topic = (name) => {
  if (!topics.has(name)) topics.set(name, { name, destination: `topic://${name}`, published: 0, retained: false, virtual: name.startsWith('VirtualTopic.') });
  return topics.get(name);
};

const size = (message) => (message.bodyBase64 !== undefined ? Buffer.from(message.bodyBase64, 'base64').length
  : message.body === null || message.body === undefined ? 0 : Buffer.byteLength(typeof message.body === 'string' ? message.body : JSON.stringify(message.body)));

// Takes a message to where it goes; also called by the sockets.
export function send(destination, draft, from) {
  const [, kind, name] = /^(queue|topic):\/\/(.+)$/.exec(destination ?? '') ?? [];
  if (!kind) throw new Refused(400, 'invalid-destination', `a destination starts with queue:// or topic://, not ${JSON.stringify(destination)}`, 'destination');
  const { ttl, ...rest } = draft;
  const message = { id: `ID:mock-${ids += 1}`, persistent: true, priority: 4, timestamp: Date.now(), ...rest, destination, ...(ttl ? { expiration: Date.now() + ttl } : {}) };
  totals.published += 1;
  if (kind === 'queue') put(queue(name), message);
  else topic(name).published += 1;
  for (const connection of connections.values()) if (connection.id === from) connection.published += 1;
  live.publish(destination, message, (id) => {
    totals.delivered += 1;
    if (connections.has(id)) connections.get(id).delivered += 1;
  });
  return { id: message.id, position: sequence, durability: message.persistent ? 'fsync' : 'memory' };
}

function put(to, message, more = {}) {
  to.messages.push({ sequence: sequence += 1, state: 'ready', attempts: 0, ...message, ...more });
  to.enqueued += 1;
}

const view = (one) => {
  const first = one.messages[0];
  const { messages, leased, ...rest } = one;
  return { ...rest, ready: one.messages.length + (one.fakeReady ?? 0), unsettled: leased.size + (one.fakeUnsettled ?? 0), bytes: messages.reduce((sum, message) => sum + size(message), 0),
    oldestMs: first ? Date.now() - first.timestamp : one.fakeReady ? 61_000 + one.fakeReady * 100 : null, fakeReady: undefined, fakeUnsettled: undefined };
};

// Topics and queues that a person would have, and traffic on them.
const regions = ['eu', 'us', 'apac'];
for (let i = 0; i < many; i += 1) {
  queue(`load.${regions[i % 3]}.service-${String(i % 1000).padStart(4, '0')}.${String(i).padStart(6, '0')}`,
    { consumers: i % 5, fakeReady: i % 97 === 0 ? (i * 7919) % 5000 : 0, fakeUnsettled: i % 5 ? (i * 31) % 40 : 0, enqueued: i * 3, acknowledged: i * 2 });
}
queue('shop.orders.new', { declared: true, consumers: 3 });
queue('shop.orders.audit', { consumers: 1 });
queue('billing.invoices', { consumers: 0 });
queue('Consumer.warehouse.VirtualTopic.shipments', { kind: 'queue', consumers: 2 });
queue('client-7.alerts', { kind: 'durable', consumers: 0 });
queue('DLQ.shop.orders.new', { kind: 'dead-letter' });
for (let i = 0; i < 24; i += 1) {
  send('queue://shop.orders.new', i % 3 === 2 ? { contentType: 'text/plain', body: `order ${i} from the counter`, properties: { region: 'US' } }
    : { contentType: 'application/json', correlationId: `c-${i}`, replyTo: 'queue://shop.replies', properties: { region: 'EU', attempt: i, big: { $type: 'i64', value: '9007199254740993' } },
      body: JSON.stringify({ order: 1000 + i, customer: 'Łukasz', items: [{ sku: 'A-17', quantity: i + 1 }], total: 19.9 * (i + 1) }) });
}
send('queue://billing.invoices', { contentType: 'application/octet-stream', bodyBase64: Buffer.from(Array.from({ length: 300 }, (_, i) => (i * 37) % 256)).toString('base64') });
for (let i = 0; i < 9; i += 1) {
  put(queue('DLQ.shop.orders.new'), { id: `ID:dead-${i}`, persistent: true, priority: 4, timestamp: Date.now() - 3_600_000 - i * 60_000, destination: 'queue://DLQ.shop.orders.new', contentType: 'application/json', body: `{"order":${i}}` },
    { deadLetter: { cause: ['rejected', 'too-many-attempts', 'expired'][i % 3], originalDestination: 'queue://shop.orders.new', time: Date.now() - 1_800_000, deliveries: (i % 6) + 1 } });
}
for (const name of ['news.sport', 'news.weather', 'sensors.hall.temperature', 'VirtualTopic.shipments']) topic(name);
topic('sensors.hall.temperature').retained = true;
subscriptions.set('client-7/alerts', { client: 'client-7', name: 'alerts', pattern: 'topic://alerts.>', selector: "level = 'high'", queue: 'queue://client-7.alerts', connected: false, ready: 0 });
const connection = (id, protocol, clientId, more) => connections.set(id, { id, protocol, peer: `10.0.0.${id}:5${id}00`, listener: '0.0.0.0:61613', user: 'shop', clientId, since: began - id * 60_000, subscriptions: 1,
  published: 0, delivered: 0, outboxBytes: 0, unsettled: 0, subscriptionsList: [{ destination: 'queue://shop.orders.new', selector: null, credit: 100, inFlight: 4 }], ...more });
connection(21, 'STOMP 1.2', 'web-shop', {});
connection(22, 'MQTT 5.0', 'hall-sensor', {});
connection(23, 'STOMP 1.1', 'warehouse-1', {});
connection(24, 'JSON', null, {});
const flows = [['21', 'queue://shop.orders.new', 37], ['22', 'topic://sensors.hall.temperature', 5], ['21', 'topic://VirtualTopic.shipments', 12]];
const edges = new Map();
setInterval(() => {
  for (const [from, to, n] of flows) {
    const now = Math.round(n / 2 * (0.7 + Math.random() * 0.6));
    edges.set(`${from} ${to}`, (edges.get(`${from} ${to}`) ?? 0) + now);
    totals.published += now;
    totals.delivered += now;
    totals.acknowledged += now;
    connections.get(Number(from)).published += now;
    const [kind, name] = to.split('://');
    if (kind === 'queue') {
      queue(name).enqueued += now;
      queue(name).acknowledged += now;
    } else topic(name).published += now;
  }
}, 500).unref();

// -- the API ----------------------------------------------------------------------------

function matcher(filter) {
  if (!filter) return () => true;
  const pattern = new RegExp(filter.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&')).join('.*'), 'i');
  return (text) => pattern.test(text);
}

function paged(all, query, more = {}) {
  const limit = Number(query.get('limit') ?? 100);
  if (!(limit >= 1 && limit <= 1000)) throw new Refused(400, 'invalid-header', 'limit is a number from 1 to 1000', 'limit');
  const start = Number(query.get('after') ?? 0);
  const items = all.slice(start, start + limit);
  return { items, next: start + limit < all.length ? String(start + limit) : null, total: all.length, ...more };
}

function known(map, key, code = 'unknown-destination', what = 'destination') {
  const found = map.get(key);
  if (!found) throw new Refused(404, code, `there is no ${what} ${JSON.stringify(key)}`);
  return found;
}

// As much of selectors as `name = 'value'` and `name = number`.
function selected(messages, selector) {
  if (!selector) return messages;
  const [, name, text, number] = /^\s*(\w+)\s*=\s*(?:'([^']*)'|(\d+))\s*$/.exec(selector) ?? [];
  if (!name) throw new Refused(400, 'invalid-selector', `the selector ${JSON.stringify(selector)} cannot be read`, 'selector');
  return messages.filter((message) => (text === undefined ? message.properties?.[name] === Number(number) : message.properties?.[name] === text));
}

function choose(of, { sequences, selector, max }) {
  const found = sequences ? of.messages.filter((message) => sequences.map(Number).includes(message.sequence)) : selected([...of.messages], selector);
  return max ? found.slice(0, max) : [...found];
}
const drop = (of, chosen) => {
  const gone = new Set(chosen);
  of.messages = of.messages.filter((message) => !gone.has(message));
  return chosen.length;
};
const cut = (message) => ({ ...message, bodyBytes: size(message), bodyTruncated: false });

const routes = [
  ['GET', '/v1/overview', () => ({ version: '0.1.0-mock', uptimeMs: Date.now() - began, connections: connections.size, connectionsByProtocol: { stomp: 2, mqtt: 1, json: 1 }, queues: queues.size, topics: topics.size,
    sessions: 1, subscriptions: subscriptions.size, ready: [...queues.values()].reduce((sum, one) => sum + one.messages.length + (one.fakeReady ?? 0), 0), unsettled: 44, ...totals,
    memoryBytes: 180e6, memoryBytesMax: 512e6, storeBytes: 1.9e9, storeBytesMax: null, residentBytes: 210e6, time: Date.now() })],
  ['GET', '/v1/vhosts', () => ({ items: [{ name: '/', queues: queues.size, topics: topics.size }, { name: 'test', queues: 0, topics: 0 }], next: null, total: 2 })],
  ['GET', '/v1/queues', ({ query }) => {
    sorted ??= [...queues.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    const match = matcher(query.get('filter'));
    let all = sorted.filter((one) => match(one.name));
    const by = query.get('sort');
    const value = { '-ready': (one) => one.messages.length + (one.fakeReady ?? 0), '-consumers': (one) => one.consumers, '-unsettled': (one) => one.leased.size + (one.fakeUnsettled ?? 0) }[by];
    if (value) all = [...all].sort((a, b) => value(b) - value(a));
    const page = paged(all, query);
    return { ...page, items: page.items.map(view) };
  }],
  ['GET', '/v1/queues/:name', ({ name }) => ({ ...view(known(queues, name)), policy: { deadLetter: 'DLQ.>', attemptsMax: 6, expiry: null }, bindings: name.includes('VirtualTopic') ? [{ pattern: 'topic://VirtualTopic.shipments', selector: null }] : [],
    consumersList: Array.from({ length: Math.min(3, queues.get(name).consumers) }, (_, i) => ({ connection: 21 + i, subscription: `sub-${i}`, credit: 100, inFlight: i, selector: null })) })],
  ['PUT', '/v1/queues/:name', ({ name }) => {
    if (/\s/.test(name)) throw new Refused(400, 'invalid-destination', 'a name has no blanks', 'name');
    const there = queues.has(name);
    queue(name).declared = true;
    return { status: there ? 200 : 201, body: view(queue(name)) };
  }],
  ['DELETE', '/v1/queues/:name', ({ name }) => {
    known(queues, name);
    queues.delete(name);
    sorted = undefined;
  }],
  ['POST', '/v1/queues/:name/purge', ({ name }) => ({ removed: drop(known(queues, name), [...queues.get(name).messages]) })],
  ['POST', '/v1/queues/:name/pause', ({ name }) => { known(queues, name).paused = true; }],
  ['POST', '/v1/queues/:name/resume', ({ name }) => { known(queues, name).paused = false; }],
  ['GET', '/v1/queues/:name/messages', ({ name, query }) => {
    const text = (query.get('text') ?? '').toLowerCase();
    const all = selected(known(queues, name).messages, query.get('selector')).filter((message) => !text || String(message.body ?? '').toLowerCase().includes(text));
    const page = paged(all, query);
    return { ...page, items: page.items.map(cut) };
  }],
  ['POST', '/v1/queues/:name/messages', ({ name, body }) => ({ status: 201, body: Array.isArray(body) ? { messages: body.map((one) => send(`queue://${name}`, one)) } : send(`queue://${name}`, body) })],
  ['POST', '/v1/topics/:name/messages', ({ name, body }) => ({ status: 201, body: Array.isArray(body) ? { messages: body.map((one) => send(`topic://${name}`, one)) } : send(`topic://${name}`, body) })],
  ['POST', '/v1/queues/:name/messages/move', ({ name, body }) => {
    const chosen = choose(known(queues, name), body);
    for (const { sequence: _, state: __, ...message } of chosen) send(body.to, message);
    return { moved: drop(queues.get(name), chosen) };
  }],
  ['POST', '/v1/queues/:name/messages/copy', ({ name, body }) => {
    const chosen = choose(known(queues, name), body);
    for (const { sequence: _, state: __, ...message } of chosen) send(body.to, message);
    return { copied: chosen.length };
  }],
  ['POST', '/v1/queues/:name/messages/delete', ({ name, body }) => ({ removed: drop(known(queues, name), choose(queues.get(name), body)) })],
  ['GET', '/v1/queues/:name/messages/:seq', ({ name, seq }) => cut(one(name, seq))],
  ['DELETE', '/v1/queues/:name/messages/:seq', ({ name, seq }) => { drop(queues.get(name), [one(name, seq)]); }],
  ['POST', '/v1/queues/:name/messages/:seq/resend', ({ name, seq, body }) => {
    const { sequence: _, state: __, deadLetter: ___, ...message } = one(name, seq);
    const { to, ...changes } = body;
    const result = send(to ?? message.destination, { ...message, ...changes });
    drop(queues.get(name), [one(name, seq)]);
    return { status: 201, body: result };
  }],
  ['POST', '/v1/queues/:name/pull', ({ name, query }) => {
    const from = known(queues, name);
    const taken = from.messages.splice(0, Number(query.get('max') ?? 1));
    return { messages: taken.map((message) => {
      const lease = `${name}~${message.sequence}`;
      from.leased.set(lease, message);
      return { lease, leaseExpires: Date.now() + 30_000, ...message };
    }) };
  }],
  ['POST', '/v1/leases/:token/:how', ({ token, how }) => {
    const from = known(queues, token.split('~')[0]);
    const message = known(from.leased, token, 'unknown-delivery', 'lease');
    from.leased.delete(token);
    if (how === 'ack') totals.acknowledged += 1;
    else if (how === 'release') from.messages.unshift(message);
    else {
      totals.deadLettered += 1;
      put(queue(`DLQ.${from.name}`, { kind: 'dead-letter' }), message, { deadLetter: { cause: 'rejected', originalDestination: from.destination, time: Date.now(), deliveries: 1 } });
    }
  }],
  ['GET', '/v1/dead-letters', ({ query }) => paged([...queues.values()].filter((one) => one.kind === 'dead-letter' && matcher(query.get('filter'))(one.name))
    .map((one) => ({ queue: one.name, messages: one.messages.length, oldestMs: view(one).oldestMs })), query)],
  ['POST', '/v1/dead-letters/:name/redrive', ({ name, body }) => {
    const chosen = choose(known(queues, name), body);
    for (const { sequence: _, state: __, deadLetter, ...message } of chosen) send(deadLetter.originalDestination, message);
    return { redriven: drop(queues.get(name), chosen) };
  }],
  ['GET', '/v1/topics', ({ query }) => paged([...topics.values()].filter((one) => matcher(query.get('filter'))(one.name)).sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((one) => ({ ...one, subscribers: live.count(one.destination) })), query)],
  ['GET', '/v1/topics/:name', ({ name }) => ({ ...known(topics, name), subscribers: live.count(`topic://${name}`), subscribersList: live.who(`topic://${name}`), boundQueues: name.startsWith('VirtualTopic.') ? [{ queue: `Consumer.warehouse.${name}` }] : [] })],
  ['DELETE', '/v1/topics/:name/retained', ({ name }) => { known(topics, name).retained = false; }],
  ['GET', '/v1/subscriptions', ({ query }) => paged([...subscriptions.values()].filter((one) => matcher(query.get('filter'))(`${one.client} ${one.name}`)), query)],
  ['PUT', '/v1/subscriptions/:client/:name', ({ client, name, body }) => {
    subscriptions.set(`${client}/${name}`, { client, name, pattern: `topic://${body.topic.replace(/^topic:\/\//, '')}`, selector: body.selector ?? null, queue: `queue://${client}.${name}`, connected: false, ready: 0 });
    return { status: 201, body: {} };
  }],
  ['DELETE', '/v1/subscriptions/:client/:name', ({ client, name }) => {
    known(subscriptions, `${client}/${name}`, 'unknown-subscription', 'subscription');
    subscriptions.delete(`${client}/${name}`);
  }],
  ['GET', '/v1/connections', ({ query }) => paged([...connections.values()].filter((one) => matcher(query.get('filter'))(`${one.peer} ${one.user} ${one.clientId}`)), query)],
  ['GET', '/v1/connections/:id', ({ id }) => known(connections, Number(id), 'unknown-destination', 'connection')],
  ['DELETE', '/v1/connections/:id', ({ id }) => {
    known(connections, Number(id), 'unknown-destination', 'connection');
    connections.delete(Number(id));
    live.cut(Number(id));
  }],
  ['GET', '/v1/rules', () => ({ composites: [{ name: 'queue://shop.orders', forwardTo: [{ destination: 'queue://shop.orders.new', selector: null }, { destination: 'queue://shop.orders.audit', selector: "region = 'EU'" }], forwardOnly: true }],
    virtualTopics: [{ name: 'VirtualTopic.>', prefix: 'Consumer.*.', postfix: '' }], mirroredQueues: null })],
  ['GET', '/v1/policies', () => ({ items: [{ pattern: 'queue://>', attemptsMax: 6, deadLetter: 'DLQ.{name}', messagesMax: null, bytesMax: 1_073_741_824 }, { pattern: 'queue://billing.>', attemptsMax: 20, redeliveryDelayMs: 5000 }], next: null, total: 2 })],
  ['GET', '/v1/routing', () => routing()],
  ['GET', '/v1/webhooks', ({ query }) => paged([...webhooks.values()], query)],
  ['PUT', '/v1/webhooks/:name', ({ name, body }) => {
    webhooks.set(name, { name, ...body, state: 'idle' });
    return { status: 201, body: webhooks.get(name) };
  }],
  ['DELETE', '/v1/webhooks/:name', ({ name }) => { webhooks.delete(name); }],
  ['GET', '/v1/session', ({ user }) => ({ user: user ?? null, anonymous: !mayUser, may: { manage: true } })],
  ['POST', '/v1/session', ({ body }) => {
    if (body.user !== mayUser || body.password !== mayPassword) throw new Refused(401, 'authentication-failed', 'user or password is wrong');
    return { body: { user: mayUser }, headers: { 'set-cookie': 'sabir-session=yes; HttpOnly; SameSite=Strict; Path=/' } };
  }],
  ['DELETE', '/v1/session', () => ({ status: 204, headers: { 'set-cookie': 'sabir-session=; Max-Age=0; Path=/' } })],
];

function one(name, seq) {
  const found = known(queues, name).messages.find((message) => message.sequence === Number(seq));
  if (!found) throw new Refused(404, 'unknown-delivery', `there is no message ${seq}`);
  return found;
}

function routing() {
  const node = (id, kind, label) => ({ id, kind, label });
  const total = (from, to) => edges.get(`${from} ${to}`) ?? 0;
  const orders = total('21', 'queue://shop.orders.new');
  const shipments = total('21', 'topic://VirtualTopic.shipments');
  const heat = total('22', 'topic://sensors.hall.temperature');
  return {
    nodes: [node('publisher:21', 'publisher', 'web-shop'), node('publisher:22', 'publisher', 'hall-sensor'), node('rule:orders', 'rule', 'shop.orders'), node('q:new', 'queue', 'shop.orders.new'), node('q:audit', 'queue', 'shop.orders.audit'),
      node('t:heat', 'topic', 'sensors.hall.temperature'), node('t:ship', 'topic', 'VirtualTopic.shipments'), node('q:ware', 'queue', 'Consumer.warehouse.VirtualTopic.shipments'), node('subscriber:23', 'subscriber', 'warehouse-1'), node('subscriber:24', 'subscriber', 'dashboard'), node('subscriber:21', 'subscriber', 'web-shop')],
    edges: [['publisher:21', 'rule:orders', 'publish', orders], ['rule:orders', 'q:new', 'route', orders], ['rule:orders', 'q:audit', 'route', Math.floor(orders / 3)], ['publisher:22', 't:heat', 'publish', heat], ['t:heat', 'subscriber:24', 'consume', heat],
      ['publisher:21', 't:ship', 'publish', shipments], ['t:ship', 'q:ware', 'binding', shipments], ['q:ware', 'subscriber:23', 'consume', shipments], ['q:new', 'subscriber:23', 'consume', orders], ['q:new', 'subscriber:21', 'consume', 0]]
      .map(([from, to, kind, messages]) => ({ from, to, kind, messages })),
    truncated: false,
  };
}

// -- HTTP --------------------------------------------------------------------------------

const policy = /POLICY: &str = "([^"]*)"/.exec(readFileSync(path.join(root, 'src/admin/console.rs'), 'utf8').replace(/\\\n\s*/g, ''))[1];
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml', LICENSE: 'text/plain; charset=utf-8', yaml: 'application/yaml' };

function file(response, name) {
  const place = path.join(root, name);
  if (!place.startsWith(root) || !existsSync(place)) return response.writeHead(404).end('nothing is here\n');
  response.writeHead(200, { 'content-type': TYPES[name.split('.').at(-1)] ?? 'text/plain', 'content-security-policy': policy, 'x-content-type-options': 'nosniff', 'cache-control': 'no-cache' });
  return response.end(readFileSync(place));
}

function problem(response, error) {
  const { status = 500, code = 'internal', field } = error;
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ type: `urn:sabir:error:${code}`, title: code, status, detail: error.message, code, field }));
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://mock');
  if (url.pathname === '/') return file(response, 'web/index.html');
  if (url.pathname === '/docs') return file(response, 'web/docs.html');
  if (url.pathname === '/openapi.yaml') return file(response, 'openapi.yaml');
  if (url.pathname.startsWith('/console/')) return file(response, `web/${url.pathname.slice(9)}`);
  const user = /sabir-session=yes/.test(request.headers.cookie ?? '') ? mayUser : undefined;
  const inside = !mayUser || user || (url.pathname === '/v1/session' && request.method === 'POST');
  if (!inside) throw new Refused(401, 'authentication-failed', 'log in');
  let text = '';
  for await (const part of request) text += part;
  const body = text ? JSON.parse(text) : {};
  const parts = url.pathname.split('/').map(decodeURIComponent);
  for (const [method, pattern, handle] of routes) {
    const names = pattern.split('/');
    if (method !== request.method || names.length !== parts.length || !names.every((part, i) => part.startsWith(':') || part === parts[i])) continue;
    const given = Object.fromEntries(names.flatMap((part, i) => (part.startsWith(':') ? [[part.slice(1), parts[i]]] : [])));
    const result = handle({ ...given, query: url.searchParams, body, user });
    const shaped = result && (result.status || result.headers) && !result.id ? result : { status: result === undefined ? 204 : 200, body: result };
    response.writeHead(shaped.status ?? 200, { 'content-type': 'application/json', 'cache-control': 'no-store', ...shaped.headers });
    return response.end(shaped.body === undefined ? undefined : JSON.stringify(shaped.body));
  }
  throw new Refused(404, 'unknown-path', `nothing is at ${url.pathname}`);
}

const server = createServer((request, response) => answer(request, response).catch((error) => problem(response, error)));
attach(server, {
  send,
  browse: (destination) => queues.get(destination.replace('queue://', ''))?.messages ?? [],
  opened: (id, protocol, clientId) => connections.set(id, { id, protocol, peer: `127.0.0.1:${id}`, listener: `127.0.0.1:${port}`, user: null, clientId, since: Date.now(), subscriptions: 1, published: 0, delivered: 0, outboxBytes: 0, unsettled: 0, subscriptionsList: [] }),
  closed: (id) => connections.delete(id),
});
server.listen(port, '127.0.0.1', () => console.log(`mock: http://127.0.0.1:${server.address().port}/`));
