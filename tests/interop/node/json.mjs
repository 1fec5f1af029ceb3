#!/usr/bin/env node
// The JSON protocol through web/sabir.js, as a page uses it, with the WebSocket that Node itself has (before Node 22:
// `node --experimental-websocket`). HTTP_PORT says where. One line per check, then a summary.
import { fileURLToPath } from 'node:url';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from './checks.mjs';
import { httpPort, run as runName, wait } from './modules.mjs';

// As text, for nothing says to this version of Node that the file is a module.
const source = readFileSync(path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../web/sabir.js'));
const { connect } = await import(`data:text/javascript;base64,${source.toString('base64')}`);

const run = runName('json');
const url = `ws://127.0.0.1:${httpPort}/ws`;
let open = [];

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${wait} ms`)), wait);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function client(options) {
  const made = await within('greeting', connect(url, options));
  open.push(made);
  return made;
}

// A listener whose calls are awaited one after the other.
function inbox() {
  const ready = [];
  const waiting = [];
  const listener = (message, delivery) => {
    const next = waiting.shift();
    if (next) next({ message, delivery });
    else ready.push({ message, delivery });
  };
  const take = () => within('message', new Promise((resolve) => {
    if (ready.length) resolve(ready.shift());
    else waiting.push(resolve);
  }));
  return { listener, take, ready };
}

async function refusal(promise) {
  try {
    await within('refusal', promise);
  } catch (error) {
    return [error.code, error.field];
  }
  throw new Error('not refused');
}

const checks = {
  async 'a message goes from one page to another'() {
    const [sender, reader] = [await client(), await client()];
    const { listener, take } = inbox();
    await reader.subscribe(`topic://${run}.news.>`, listener);
    const sent = await sender.send({ destination: `topic://${run}.news.sport`, body: { goals: 3 }, properties: { n: 5 } });
    const { message, delivery } = await take();
    expect([message.body, message.properties, message.id], [{ goals: 3 }, { n: 5 }, sent.id], 'the message');
    expect(delivery.deliveryId, undefined, 'a name for what nobody settles');
  },
  async 'persistent messages are answered when they are on disk'() {
    const sent = await (await client()).send({ destination: `queue://${run}.kept`, body: 'x' });
    expect([sent.durability, typeof sent.position], ['fsync', 'number'], 'the answer');
  },
  async 'large messages and every character'() {
    const page = await client();
    const { listener, take } = inbox();
    await page.subscribe(`queue://${run}.large`, listener);
    const bodies = ['☃'.repeat(500_000), '\u0000\u001f"\\\n\u2028😀'];
    for (const body of bodies) await page.send({ destination: `queue://${run}.large`, body });
    for (const body of bodies) expect((await take()).message.body === body, true, 'the same body');
  },
  async 'settling one by one, and credit'() {
    const page = await client();
    const { listener, take, ready } = inbox();
    const queue = `queue://${run}.work`;
    const subscription = await page.subscribe(queue, listener, { ack: 'individual', credit: 1 });
    for (const body of ['1', '2']) await page.send({ destination: queue, body });
    const first = await take();
    await page.nack(first.delivery.deliveryId, true);
    const again = await take();
    expect([again.message.body, again.message.redelivered], ['1', true], 'once more');
    await subscription.credit(0);
    await page.ack(again.delivery.deliveryId);
    await page.ping();
    expect(ready.length, 0, 'messages while it pauses');
    await subscription.credit(10);
    await page.release((await take()).delivery.deliveryId);
    await page.ack((await take()).delivery.deliveryId);
    await subscription.unsubscribe();
    expect(await refusal(page.ack(again.delivery.deliveryId)), ['unknown-delivery', 'deliveryId'], 'a second ack');
  },
  async 'transactions'() {
    const page = await client();
    const { listener, take } = inbox();
    const queue = `queue://${run}.tx`;
    await page.subscribe(queue, listener);
    for (const how of ['abort', 'commit']) {
      const transaction = await page.begin();
      await transaction.send({ destination: queue, body: how });
      await transaction[how]();
    }
    expect((await take()).message.body, 'commit', 'what comes');
  },
  async 'requests'() {
    const [page, worker] = [await client(), await client()];
    const queue = `queue://${run}.square`;
    await worker.subscribe(queue, ({ body, replyTo, correlationId }) => {
      worker.send({ destination: replyTo, correlationId, body: String(body ** 2) });
    });
    const answers = await Promise.all([2, 3, 4].map((n) => page.request({ destination: queue, body: String(n) }, wait)));
    expect(answers.map(({ body }) => body), ['4', '9', '16'], 'the answers');
    expect((await refusal(page.request({ destination: `queue://${run}.nobody`, body: '?' }, 20)))[0], 'timed-out', 'no reply');
    const many = inbox();
    page.onreply = many.listener;
    await page.send({ destination: `queue://${run}.square`, body: '5', replyTo: '$reply', correlationId: 'mine' });
    const { message } = await many.take();
    expect([message.body, message.correlationId], ['25', 'mine'], 'a reply without a request');
    const own = await page.temporary();
    const { listener, take } = inbox();
    await page.subscribe(own, listener);
    await page.send({ destination: own, body: 'mine' });
    expect((await take()).message.body, 'mine', 'in a queue of its own');
  },
  async 'durable subscriptions and browsing'() {
    const clientId = `${run}-page`;
    const first = await client({ clientId });
    await first.subscribe(`topic://${run}.d`, () => {}, { durable: 'd' });
    await first.close();
    const page = await client();
    await page.send({ destination: `topic://${run}.d`, body: 'waited' });
    const second = await client({ clientId });
    const { listener, take } = inbox();
    const subscription = await second.subscribe(`topic://${run}.d`, listener, { durable: 'd' });
    expect((await take()).message.body, 'waited', 'the message');
    await subscription.unsubscribe(true);
    await page.send({ destination: `queue://${run}.b`, body: 'stays' });
    for (let time = 0; time < 2; time += 1) {
      const seen = inbox();
      await page.subscribe(`queue://${run}.b`, seen.listener, { browse: true });
      expect((await seen.take()).message.body, 'stays', 'what is seen');
      expect((await seen.take()).delivery.op, 'end', 'the end');
    }
  },
  async 'refusals are errors and leave the connection'() {
    const page = await client();
    expect(await refusal(page.send({ destination: 'nowhere' })), ['invalid-destination', 'destination'], 'a wrong name');
    expect(await refusal(page.send({ destination: `queue://${run}`, bdoy: 1 })), ['invalid-body', 'bdoy'], 'a wrong key');
    const wrong = page.subscribe(`queue://${run}`, () => {}, { selector: '1=' });
    expect((await refusal(wrong))[0], 'invalid-selector', 'a wrong selector');
    expect((await page.ping()).op, 'pong', 'afterwards');
  },
  async 'heart-beats keep an idle connection'() {
    const page = await client({ heartbeat: 1000 });
    let gone = false;
    page.onclose = () => { gone = true; };
    await new Promise((resolve) => { setTimeout(resolve, 4500); });
    expect([gone, (await page.ping()).op], [false, 'pong'], 'after a while');
  },
  async 'the end of a connection is told to whoever waits'() {
    const page = await client();
    const closed = new Promise((resolve) => { page.onclose = resolve; });
    await page.close();
    await within('close', closed);
    const answer = await page.ping().catch((error) => error.message);
    expect(answer, 'the connection is closed', 'a call');
  },
};

let [passed, failed] = [0, 0];
const only = process.argv[2] ?? '';
for (const [name, check] of Object.entries(checks)) {
  if (!name.includes(only)) continue;
  try {
    await check();
    passed += 1;
    console.log(`ok   ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.stack}`);
  }
  await Promise.all(open.map((made) => made.close()));
  open = [];
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
