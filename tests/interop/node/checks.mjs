// What @stomp/stompjs must be able to do, over TCP in Node and over WebSocket in
// a browser alike: so this module uses nothing but the language and the client.

class Failed extends Error {}

function show(value) {
  const text = typeof value === 'string' ? JSON.stringify(value) : JSON.stringify(value) ?? String(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

export function expect(got, wanted, what) {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Failed(`${what}: expected ${show(wanted)}, got ${show(got)}`);
  }
}

// Things that arrive, awaited one after the other.
class Inbox {
  constructor(what, wait) {
    Object.assign(this, { what, wait, ready: [], waiting: [], error: undefined });
  }

  push(thing) {
    const next = this.waiting.shift();
    if (next) next.resolve(thing);
    else this.ready.push(thing);
  }

  fail(error) {
    this.error = error;
    for (const { reject } of this.waiting.splice(0)) reject(error);
  }

  take() {
    if (this.ready.length) return Promise.resolve(this.ready.shift());
    if (this.error) return Promise.reject(this.error);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Failed(`no ${this.what} within ${this.wait} ms`)), this.wait);
      const settle = (how) => (value) => {
        clearTimeout(timer);
        how(value);
      };
      this.waiting.push({ resolve: settle(resolve), reject: settle(reject) });
    });
  }
}

const range = (count, text = (i) => `m${i}`) => Array.from({ length: count }, (_, i) => text(i));
const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
const utf8 = new TextEncoder();

// Repeatable noise.
function noise(length, seed) {
  const bytes = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

// options: { Client, Versions, transport(versions) → client settings, label, run, broker, wait, echo, only }
// echo names a queue whose other side answers from another transport.
export async function runChecks(options, print) {
  const { Client, Versions, transport, label, run, broker, wait, echo, only = '' } = options;
  const open = [];

  class Peer {
    static async open(version, headers = {}, settings = {}) {
      const peer = new Peer();
      open.push(peer);
      const versions = new Versions([version]);
      peer.version = version;
      peer.messages = new Inbox('message', wait);
      peer.errors = new Inbox('ERROR', wait);
      peer.closed = new Inbox('close', wait);
      peer.beats = new Inbox('heart-beat', wait);
      peer.number = 0;
      const greeting = new Inbox('CONNECTED', wait);
      peer.client = new Client({
        ...transport(versions),
        stompVersions: versions,
        connectHeaders: headers,
        reconnectDelay: 0,
        heartbeatIncoming: 0,
        heartbeatOutgoing: 0,
        ...settings,
        onConnect: (frame) => greeting.push(frame),
        onStompError: (frame) => {
          peer.errors.push(frame);
          const error = new Failed(`ERROR ${frame.headers.message}`);
          greeting.fail(error);
          peer.messages.fail(error);
        },
        onWebSocketClose: () => {
          greeting.fail(new Failed('connection closed before CONNECTED'));
          peer.closed.push(true);
        },
        onHeartbeatReceived: () => peer.beats.push(true),
      });
      peer.client.activate();
      peer.greeting = (await greeting.take()).headers;
      expect(peer.greeting.version, version, 'version');
      return peer;
    }

    take() {
      return this.messages.take();
    }

    async bodies(count) {
      const all = [];
      for (let i = 0; i < count; i += 1) all.push((await this.take()).body);
      return all;
    }

    // Calls `act` with a receipt header and waits for the receipt.
    async checked(act) {
      const receipt = `r${(this.number += 1)}`;
      const inbox = new Inbox(`receipt ${receipt}`, wait);
      this.client.watchForReceipt(receipt, (frame) => inbox.push(frame));
      act({ receipt });
      await inbox.take();
    }

    send(destination, body, headers = {}) {
      this.client.publish({ destination, headers, ...(typeof body === 'string' ? { body } : { binaryBody: body }) });
    }

    sendChecked(destination, body, headers = {}) {
      return this.checked((receipt) => this.send(destination, body, { ...headers, ...receipt }));
    }

    subscribe(destination, headers = {}) {
      return this.checked((receipt) => {
        const settings = { ack: 'auto', id: 's1', ...headers, ...receipt };
        this.client.subscribe(destination, (message) => this.messages.push(message), settings);
      });
    }

    unsubscribe(headers = {}) {
      return this.checked((receipt) => this.client.unsubscribe('s1', { ...headers, ...receipt }));
    }

    ack(message, headers = {}) {
      return this.checked((receipt) => message.ack({ ...headers, ...receipt }));
    }

    async leave() {
      await this.client.deactivate();
    }

    // The socket goes without a DISCONNECT.
    async cut() {
      this.client.webSocket.close();
      await this.closed.take();
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

    async bodiesOfEveryShape(v) {
      const q = queue('bodies', v);
      const [producer, consumer] = [await Peer.open(v), await Peer.open(v)];
      await consumer.subscribe(q);
      const all = noise(256, 1).map((_, i) => i);
      const bodies = ['', 'x', 'naïve 🦀💩 世界', 'a\u0000b\u0000\u0000', '\n\n\n', '\r\n', 't'.repeat(300_000), all,
        new Uint8Array(1), new Uint8Array([0xff, 0xfe, 0, 0xc3, 0x28]), noise(65_536, 2), noise(1 << 20, 3), 'after'];
      for (const body of bodies) producer.send(q, body);
      for (const [i, body] of bodies.entries()) {
        const message = await consumer.take();
        const bytes = typeof body === 'string' ? utf8.encode(body) : body;
        if (!same(message.binaryBody, bytes)) {
          throw new Failed(`body ${i} of ${bytes.length} bytes came back different (${message.binaryBody.length})`);
        }
        if (typeof body === 'string') expect(message.body, body, 'text');
      }
      producer.client.publish({ destination: q, body: 'no length', skipContentLengthHeader: true });
      expect((await consumer.take()).body, 'no length', 'without content-length');
      await producer.leave();
      await consumer.leave();
    },

    async headersOfEveryShape(v) {
      const q = queue('headers', v);
      const peer = await Peer.open(v);
      await peer.subscribe(q);
      const headers = { plain: 'value', colon: v === '1.1' ? 'none' : 'a:b:c', unicode: 'snow ☃ 🦀', long: 'h'.repeat(4000) };
      // The library escapes in 1.2 only, so only there may a value hold these.
      if (v === '1.2') Object.assign(headers, { newline: 'one\ntwo\n', backslash: 'c:\\dir' });
      peer.send(q, 'h', { ...headers, 'correlation-id': 'c1', type: 'order', priority: '7' });
      const message = await peer.take();
      for (const [key, value] of Object.entries(headers)) expect(message.headers[key], value, `header ${key}`);
      expect([message.headers['correlation-id'], message.headers.type, message.headers.priority], ['c1', 'order', '7'], 'fields');
      await peer.leave();
    },

    async acknowledgements(v) {
      const cases = [
        ['client', [5], [6, 7, 8, 9], false],
        ['client', [0, 3], [4, 5, 6, 7, 8, 9], true],
        ['client-individual', [1, 8], [0, 2, 3, 4, 5, 6, 7, 9], false],
        ['client-individual', [9, 0], [1, 2, 3, 4, 5, 6, 7, 8], true],
        ['auto', [], [], false],
      ];
      for (const [number, [mode, acks, back, cut]] of cases.entries()) {
        const q = queue(`ack${number}`, v);
        let peer = await Peer.open(v);
        for (const body of range(10)) await peer.sendChecked(q, body, { persistent: 'true' });
        await peer.subscribe(q, { ack: mode });
        const messages = [];
        for (let i = 0; i < 10; i += 1) messages.push(await peer.take());
        expect(messages.map((m) => m.body), range(10), `${mode}: first delivery`);
        for (const i of acks) await peer.ack(messages[i]);
        if (cut) await peer.cut();
        else await peer.leave();
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
      (await peer.take()).nack();
      const message = await peer.take();
      expect([message.body, message.headers.redelivered], ['once more', 'true'], 'after NACK');
      await peer.ack(message);
      await peer.leave();
    },

    async transactions(v) {
      const q = queue('tx', v);
      const peer = await Peer.open(v);
      let consumer = await Peer.open(v);
      await consumer.subscribe(q, { ack: 'client-individual' });
      const [one, two] = [peer.client.begin(), peer.client.begin()];
      for (let i = 0; i < 20; i += 1) {
        peer.send(q, `one ${i}`, { transaction: one.id });
        peer.send(q, `two ${i}`, { transaction: two.id });
      }
      await peer.sendChecked(q, 'outside');
      two.abort();
      one.commit();
      await peer.sendChecked(q, 'sentinel');
      const messages = [];
      for (let i = 0; i < 22; i += 1) messages.push(await consumer.take());
      expect(messages.map((m) => m.body), ['outside', ...range(20, (i) => `one ${i}`), 'sentinel'], 'committed only');
      const three = consumer.client.begin();
      for (const message of messages.slice(0, 20)) await consumer.ack(message, { transaction: three.id });
      three.commit();
      const four = consumer.client.begin();
      for (const message of messages.slice(20)) await consumer.ack(message, { transaction: four.id });
      four.abort();
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
      peer = await Peer.open(v, { 'client-id': who });
      await peer.subscribe(topic, settings);
      expect(await peer.bodies(100), range(100), 'kept while away');
      await peer.unsubscribe();
      await peer.unsubscribe(settings);
      await peer.leave();
      await producer.sendChecked(topic, 'nobody keeps this', { persistent: 'true' });
      peer = await Peer.open(v, { 'client-id': who });
      await peer.subscribe(topic, settings);
      producer.send(topic, 'sentinel');
      expect((await peer.take()).body, 'sentinel', 'nothing kept after unsubscribe');
      await peer.unsubscribe();
      await peer.unsubscribe(settings);
      await peer.leave();
      await producer.leave();
    },

    async requestReply(v) {
      const q = echo ?? queue('service', v);
      const asker = await Peer.open(v);
      const server = await Peer.open(v);
      if (!echo) {
        server.client.subscribe(q, (request) => {
          server.send(request.headers['reply-to'], `echo ${request.body}`,
            { 'correlation-id': request.headers['correlation-id'] });
        }, { id: 'service' });
      }
      await asker.subscribe('/temp-queue/answers');
      for (let i = 0; i < 200; i += 1) {
        asker.send(q, `ask ${i}`, { 'reply-to': '/temp-queue/answers', 'correlation-id': `c${i}` });
      }
      for (let i = 0; i < 200; i += 1) {
        const reply = await asker.take();
        expect([reply.body, reply.headers['correlation-id']], [`echo ask ${i}`, `c${i}`], 'reply');
      }
      await asker.leave();
      await server.leave();
    },

    async selectorWildcardComposite(v) {
      const [a, b, any] = ['sel.a', 'sel.b', 'sel.*'].map((what) => queue(what, v));
      const producer = await Peer.open(v);
      for (let i = 0; i < 10; i += 1) await producer.sendChecked(`${a},${b}`, `m${i}`, { n: String(i) });
      let peer = await Peer.open(v);
      await peer.subscribe(a, { selector: 'n > 6' });
      expect(await peer.bodies(3), ['m7', 'm8', 'm9'], 'selector');
      await peer.leave();
      peer = await Peer.open(v);
      await peer.subscribe(any);
      expect((await peer.bodies(17)).sort(), [...range(7), ...range(10)].sort(), 'wildcard');
      await peer.leave();
      await producer.leave();
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
      await peer.unsubscribe();
      await peer.subscribe(q, { id: 's2' });
      expect(await peer.bodies(10), range(10), 'still there');
      await peer.leave();
    },

    async heartBeats(v) {
      if (v === '1.0') return;
      const q = queue('beats', v);
      const peer = await Peer.open(v, {}, { heartbeatIncoming: 1000, heartbeatOutgoing: 1000 });
      if (peer.greeting['heart-beat'].split(',').includes('0')) throw new Failed('heart-beat refused');
      for (let i = 0; i < 3; i += 1) await peer.beats.take();
      await peer.subscribe(q);
      peer.send(q, 'still here');
      expect((await peer.take()).body, 'still here', 'after the beats');
      await peer.leave();
    },

    async errors(v) {
      const peer = await Peer.open(v);
      peer.client.subscribe(queue('error', v), () => {}, { id: 'e', selector: 'not ( SQL' });
      const frame = await peer.errors.take();
      if (!frame.headers.message) throw new Failed('ERROR without a message');
      let refused = false;
      await Peer.open('9.9').catch(() => { refused = true; });
      if (!refused) throw new Failed('version 9.9 was accepted');
    },
  };

  let [passed, failed] = [0, 0];
  for (const version of ['1.0', '1.1', '1.2']) {
    for (const [name, check] of Object.entries(checks)) {
      const title = `${label} ${version} ${name}`;
      if (!title.includes(only)) continue;
      try {
        await check(version);
        passed += 1;
        print(`ok   ${title}`);
      } catch (error) {
        failed += 1;
        print(`FAIL ${title}: ${error instanceof Failed ? error.message : error.stack ?? error}`);
      }
      // Whatever a failed check left open.
      for (const peer of open.splice(0)) {
        if (peer.client.active) await peer.client.deactivate({ force: true });
      }
    }
  }
  return { passed, failed };
}
