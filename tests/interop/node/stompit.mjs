#!/usr/bin/env node
// stompit (npm) against a running broker, STOMP 1.0, 1.1 and 1.2.
// STOMP_HOST and STOMP_PORT say where; one line per check, then a summary.
import { expect } from './checks.mjs';
import { broker, host, load, port, run as runName, wait } from './modules.mjs';

const stompit = load('stompit');
const run = runName('si');
const range = (count, text = (i) => `m${i}`) => Array.from({ length: count }, (_, i) => text(i));
const open = [];

// Fails with `what` when the promise takes too long.
function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${wait} ms`)), wait);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Peer {
  static async open(version, headers = {}, settings = {}) {
    const peer = new Peer();
    peer.version = version;
    peer.ready = [];
    peer.waiting = [];
    peer.client = await within('connection', new Promise((resolve, reject) => {
      const connectHeaders = { host: '/', 'accept-version': version, ...headers };
      stompit.connect({ host, port, connectHeaders, timeout: wait, ...settings }, (error, client) => (error ? reject(error) : resolve(client)));
    }));
    open.push(peer);
    peer.client.on('error', (error) => { peer.error = error; });
    expect(peer.client.headers.version ?? '1.0', version, 'version');
    return peer;
  }

  // Messages are read whole before the next one is asked for, as the library wants it.
  async subscribe(destination, headers = {}) {
    this.subscription = this.client.subscribe({ destination, ack: 'auto', ...headers }, (error, message) => {
      if (error) {
        this.arrive({ error });
        return;
      }
      const chunks = [];
      message.on('data', (chunk) => chunks.push(chunk));
      message.on('end', () => this.arrive({ message, headers: message.headers, bytes: Buffer.concat(chunks) }));
    });
    // The library gives SUBSCRIBE no receipt; a transaction's end is behind it.
    await this.settled();
  }

  settled() {
    const transaction = this.client.begin();
    return within('receipt of ABORT', new Promise((onReceipt) => transaction.abort({ onReceipt })));
  }

  arrive(thing) {
    const next = this.waiting.shift();
    if (next) next(thing);
    else this.ready.push(thing);
  }

  async take() {
    const got = this.ready.shift() ?? (await within('message', new Promise((resolve) => this.waiting.push(resolve))));
    if (got.error) throw got.error;
    return { ...got, body: got.bytes.toString() };
  }

  async bodies(count) {
    const all = [];
    for (let i = 0; i < count; i += 1) all.push((await this.take()).body);
    return all;
  }

  write(frame, body) {
    if (body.length) frame.write(body);
    frame.end();
  }

  send(destination, body, headers = {}) {
    const length = Buffer.byteLength(body);
    this.write(this.client.send({ destination, 'content-length': length, ...headers }), body);
  }

  sendChecked(destination, body, headers = {}) {
    return within('receipt', new Promise((onReceipt) => {
      const length = Buffer.byteLength(body);
      this.write(this.client.send({ destination, 'content-length': length, ...headers }, { onReceipt }), body);
    }));
  }

  ack(got, headers = {}) {
    return within('receipt of ACK', new Promise((onReceipt) => this.client.ack(got.message, headers, { onReceipt })));
  }

  leave() {
    return within('disconnect', new Promise((resolve, reject) => {
      this.client.disconnect((error) => (error ? reject(error) : resolve()));
    }));
  }
}

const tag = (version) => `v${version.replace('.', '')}`;
const queue = (what, version) => `/queue/${run}.${what}.${tag(version)}`;

const checks = {
  async order(v) {
    const q = queue('order', v);
    const [producer, consumer] = [await Peer.open(v), await Peer.open(v)];
    await consumer.subscribe(q);
    for (let i = 0; i < 2000; i += 1) producer.send(q, `message ${i} ${'x'.repeat(i % 90)}`);
    for (let i = 0; i < 2000; i += 1) {
      expect((await consumer.take()).body, `message ${i} ${'x'.repeat(i % 90)}`, 'body');
    }
    await producer.leave();
    await consumer.leave();
  },

  async pipelinedReceipts(v) {
    const q = queue('receipts', v);
    const peer = await Peer.open(v);
    await Promise.all(range(500).map((body) => peer.sendChecked(q, body, { persistent: 'true' })));
    await peer.subscribe(q);
    expect(await peer.bodies(500), range(500), 'bodies');
    await peer.leave();
  },

  async bodiesAndHeaders(v) {
    const q = queue('shapes', v);
    const [producer, consumer] = [await Peer.open(v), await Peer.open(v)];
    await consumer.subscribe(q);
    const all = Buffer.from(range(256, (i) => i));
    const big = Buffer.alloc(1 << 20, all);
    const bodies = ['', 'x', 'naïve 🦀💩', '\n\n', 't'.repeat(300_000), all, Buffer.from([0]), big, 'after the big one'];
    for (const body of bodies) producer.send(q, body);
    for (const [i, body] of bodies.entries()) {
      const { bytes } = await consumer.take();
      if (!bytes.equals(Buffer.from(body))) throw new Error(`body ${i} came back different, ${bytes.length} bytes`);
    }
    const headers = { plain: 'value', colon: 'a:b:c', unicode: 'snow ☃ 🦀' };
    if (v !== '1.0') Object.assign(headers, { newline: 'one\ntwo', backslash: 'c:\\new', 'na:me': 'odd' });
    if (v === '1.2' && broker === 'sabir') headers.return = 'one\r\ntwo';
    // ActiveMQ neither decodes nor encodes escapes in names.
    if (broker !== 'sabir') delete headers['na:me'];
    producer.send(q, 'h', headers);
    const message = await consumer.take();
    for (const [key, value] of Object.entries(headers)) expect(message.headers[key], value, `header ${key}`);
    // A body in pieces, no length: it ends at the NUL.
    const frame = producer.client.send({ destination: q });
    for (const piece of ['in ', 'three ', 'pieces']) frame.write(piece);
    frame.end();
    expect((await consumer.take()).body, 'in three pieces', 'body in pieces');
    await producer.leave();
    await consumer.leave();
  },

  async acknowledgements(v) {
    const cases = [
      ['client', [5], [6, 7, 8, 9]],
      ['client-individual', [1, 8], [0, 2, 3, 4, 5, 6, 7, 9]],
      ['auto', [], []],
    ];
    for (const [mode, acks, back] of cases) {
      const q = queue(`ack.${mode}`, v);
      let peer = await Peer.open(v);
      for (const body of range(10)) await peer.sendChecked(q, body, { persistent: 'true' });
      await peer.subscribe(q, { ack: mode });
      const messages = [];
      for (let i = 0; i < 10; i += 1) messages.push(await peer.take());
      expect(messages.map((m) => m.body), range(10), `${mode}: first delivery`);
      for (const i of acks) await peer.ack(messages[i]);
      await peer.leave();
      peer = await Peer.open(v);
      await peer.subscribe(q);
      for (const i of back) {
        const message = await peer.take();
        expect([message.body, message.headers.redelivered], [`m${i}`, 'true'], `${mode}: came back`);
      }
      peer.send(q, 'sentinel');
      expect((await peer.take()).body, 'sentinel', `${mode}: nothing more`);
      await peer.leave();
    }
  },

  async nack(v) {
    if (v === '1.0' || broker !== 'sabir') return;
    const q = queue('nack', v);
    const peer = await Peer.open(v);
    await peer.subscribe(q, { ack: 'client-individual' });
    peer.send(q, 'once more');
    peer.client.nack((await peer.take()).message);
    const again = await peer.take();
    expect([again.body, again.headers.redelivered], ['once more', 'true'], 'after NACK');
    await peer.ack(again);
    await peer.leave();
  },

  async transactions(v) {
    const q = queue('tx', v);
    const peer = await Peer.open(v);
    let consumer = await Peer.open(v);
    await consumer.subscribe(q, { ack: 'client-individual' });
    const [one, two] = [peer.client.begin(), peer.client.begin()];
    for (let i = 0; i < 20; i += 1) {
      one.send({ destination: q }).end(`one ${i}`);
      two.send({ destination: q }).end(`two ${i}`);
    }
    await peer.sendChecked(q, 'outside');
    await within('receipt of ABORT', new Promise((onReceipt) => two.abort({ onReceipt })));
    await within('receipt of COMMIT', new Promise((onReceipt) => one.commit({ onReceipt })));
    await peer.sendChecked(q, 'sentinel');
    const messages = [];
    for (let i = 0; i < 22; i += 1) messages.push(await consumer.take());
    expect(messages.map((m) => m.body), ['outside', ...range(20, (i) => `one ${i}`), 'sentinel'], 'committed only');
    const three = consumer.client.begin();
    for (const message of messages.slice(0, 20)) await consumer.ack(message, { transaction: three.id });
    await within('receipt of COMMIT', new Promise((onReceipt) => three.commit({ onReceipt })));
    const four = consumer.client.begin();
    for (const message of messages.slice(20)) await consumer.ack(message, { transaction: four.id });
    await within('receipt of ABORT', new Promise((onReceipt) => four.abort({ onReceipt })));
    await consumer.leave();
    consumer = await Peer.open(v);
    await consumer.subscribe(q);
    expect(await consumer.bodies(2), ['one 19', 'sentinel'], 'left over');
    await peer.leave();
    await consumer.leave();
  },

  async durable(v) {
    const topic = queue('durable', v).replace('/queue/', '/topic/');
    const who = `${run}-${tag(v)}`;
    const settings = { 'activemq.subscriptionName': who };
    let peer = await Peer.open(v, { 'client-id': who });
    await peer.subscribe(topic, settings);
    await peer.leave();
    const producer = await Peer.open(v);
    for (const body of range(100)) await producer.sendChecked(topic, body, { persistent: 'true' });
    await producer.leave();
    peer = await Peer.open(v, { 'client-id': who });
    await peer.subscribe(topic, settings);
    expect(await peer.bodies(100), range(100), 'kept while away');
    peer.subscription.unsubscribe();
    await peer.settled();
    await within('receipt of UNSUBSCRIBE', new Promise((onReceipt) => {
      const headers = { id: peer.subscription.getId(), ...settings };
      peer.client.sendFrame('UNSUBSCRIBE', headers, { onReceipt }).end();
    }));
    await peer.leave();
  },

  async requestReply(v) {
    const q = queue('service', v);
    const [asker, server] = [await Peer.open(v), await Peer.open(v)];
    await server.subscribe(q, { ack: 'client-individual' });
    await asker.subscribe('/temp-queue/answers');
    for (let i = 0; i < 200; i += 1) {
      asker.send(q, `ask ${i}`, { 'reply-to': '/temp-queue/answers', 'correlation-id': `c:${i}` });
    }
    for (let i = 0; i < 200; i += 1) {
      const request = await server.take();
      const headers = { 'correlation-id': request.headers['correlation-id'] };
      server.send(request.headers['reply-to'], `echo ${request.body}`, headers);
      server.client.ack(request.message);
    }
    for (let i = 0; i < 200; i += 1) {
      const reply = await asker.take();
      expect([reply.body, reply.headers['correlation-id']], [`echo ask ${i}`, `c:${i}`], 'reply');
    }
    await asker.leave();
    await server.leave();
  },

  async selectorComposite(v) {
    const [a, b] = ['sel.a', 'sel.b'].map((what) => queue(what, v));
    const producer = await Peer.open(v);
    for (let i = 0; i < 10; i += 1) await producer.sendChecked(`${a},${b}`, `m${i}`, { n: i });
    const [one, two] = [await Peer.open(v), await Peer.open(v)];
    await one.subscribe(a, { selector: 'n > 6' });
    await two.subscribe(b);
    expect(await one.bodies(3), ['m7', 'm8', 'm9'], 'selector');
    expect(await two.bodies(10), range(10), 'composite');
    for (const peer of [one, two, producer]) await peer.leave();
  },

  async virtualTopic(v) {
    const topic = `VirtualTopic.${run}.${tag(v)}`;
    const peers = [];
    for (let i = 0; i < 4; i += 1) peers.push(await Peer.open(v));
    const [one, two, plain, producer] = peers;
    await one.subscribe(`/queue/Consumer.A.${topic}`);
    await two.subscribe(`/queue/Consumer.B.${topic}`);
    await plain.subscribe(`/topic/${topic}`);
    for (const body of range(200)) producer.send(`/topic/${topic}`, body);
    for (const peer of [one, two, plain]) expect(await peer.bodies(200), range(200), 'each gets all');
    for (const peer of peers) await peer.leave();
  },

  async browse(v) {
    if (v === '1.0') return;
    const q = queue('browse', v);
    const peer = await Peer.open(v);
    for (const body of range(10)) await peer.sendChecked(q, body);
    await peer.subscribe(q, { browser: 'true' });
    expect(await peer.bodies(10), range(10), 'browsed');
    expect((await peer.take()).headers.browser, 'end', 'end marker');
    peer.subscription.unsubscribe();
    const other = await Peer.open(v);
    await other.subscribe(q);
    expect(await other.bodies(10), range(10), 'still there');
    await peer.leave();
    await other.leave();
  },

  async heartBeats(v) {
    if (v === '1.0') return;
    const q = queue('beats', v);
    const peer = await Peer.open(v, { 'heart-beat': '1000,1000' });
    let beats = 0;
    const socket = peer.client.getTransportSocket();
    await within('three heart-beats', new Promise((resolve) => {
      socket.on('data', (data) => {
        beats += data.toString() === '\n' ? 1 : 0;
        if (beats >= 3) resolve();
      });
    }));
    await peer.subscribe(q);
    peer.send(q, 'still here');
    expect((await peer.take()).body, 'still here', 'after the beats');
    await peer.leave();
  },

  async errors(v) {
    const peer = await Peer.open(v);
    // Asked at once: the library turns the same object into a transport error a moment later.
    const failure = new Promise((resolve) => {
      peer.client.on('error', (error) => resolve([error.isApplicationError(), error.message]));
    });
    peer.client.subscribe({ destination: queue('error', v), selector: 'not ( SQL' }, () => {});
    const [fromBroker, message] = await within('ERROR', failure);
    if (!fromBroker || !message) throw new Error(`no ERROR frame: ${message}`);
  },
};

// The library destroys the frame instead of the client, and nobody listens there, when an ERROR has a
// content-length and exactly `content-type:text/plain`: a whole program would end by it.
let stray;
process.on('uncaughtException', (error) => {
  stray = error;
  for (const peer of open) peer.client.emit('error', error);
});

let [passed, failed] = [0, 0];
for (const version of ['1.0', '1.1', '1.2']) {
  for (const [name, check] of Object.entries(checks)) {
    const title = `stompit ${version} ${name}`;
    if (!title.includes(process.argv[2] ?? '')) continue;
    try {
      stray = undefined;
      await check(version);
      if (stray) throw new Error(`the library threw, past every handler: ${stray.message}`);
      passed += 1;
      console.log(`ok   ${title}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${title}: ${error.message}`);
    }
    for (const peer of open.splice(0)) peer.client.destroy();
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
