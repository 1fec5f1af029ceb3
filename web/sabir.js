// A client of the JSON protocol over WebSocket (sub-protocol `sabir.json`, docs/json.md), for browsers and for any other
// place with a WebSocket. It needs nothing else. Each call is a promise of the broker's answer; a refusal rejects it with an
// Error that has the stable `code`, and the `field` that is wrong.
//   const broker = await connect('ws://127.0.0.1:8161/ws', { user, password });
//   await broker.subscribe('topic://news.>', (message) => console.log(message.body));
//   await broker.send({ destination: 'topic://news.sport', body: 'hello' });

// Both sides say something at least this often, so that a dead connection is noticed. Not oftener: browsers slow the timers
// of hidden pages down to one a minute.
const BEAT_MS = 60_000;

const problem = (said) => Object.assign(new Error(said.message), { code: said.code, field: said.field });

/** Opens a connection. `host` is the virtual host; `WebSocket` the class to use. */
export function connect(url, { user, password, clientId, host, heartbeat = BEAT_MS, WebSocket: Socket = WebSocket } = {}) {
  const socket = new Socket(url, ['sabir.json']);
  const asked = new Map(); // by ref: who waits for the answer
  const listeners = new Map(); // by the id of a subscription
  let number = 0;
  let heard = Date.now();
  let reason = new Error('the connection is closed');
  let timer;
  const put = (object) => socket.send(JSON.stringify(object));
  const ask = (object) => new Promise((resolve, reject) => {
    if (socket.readyState !== 1) {
      reject(reason);
      return;
    }
    number += 1;
    asked.set(number, { resolve, reject });
    put({ ...object, ref: number });
  });
  // What can be done by itself or, with its name, in a transaction.
  const work = (transaction) => ({
    /** Sends a message, an envelope with `destination`: `{ id, position, durability }`. */
    send: (message) => ask({ op: 'send', message, transaction }),
    /** Settles a delivery: done with it, again or dead (`requeue` true or false), never seen. */
    ack: (deliveryId) => ask({ op: 'ack', deliveryId, transaction }),
    nack: (deliveryId, requeue) => ask({ op: 'nack', deliveryId, requeue, transaction }),
    release: (deliveryId) => ask({ op: 'release', deliveryId, transaction }),
  });
  const client = {
    ...work(),
    /** Sends and waits for the reply, for at most `timeout` ms. */
    request: (message, timeout) => ask({ op: 'request', message, timeout }).then((reply) => reply.message),
    /**
     * Calls `listener(message, delivery)` for each message. Options: `ack` ('auto', 'client', 'individual'), `credit`,
     * `selector`, `durable`, `browse`, `noLocal`, `priority`, `mustExist`. A subscription that the broker ends, as a browse
     * at its end, calls it once more without a message.
     */
    async subscribe(destination, listener, options = {}) {
      const id = `s${number + 1}`;
      listeners.set(id, listener);
      try {
        await ask({ op: 'subscribe', id, destination, ...options });
      } catch (error) {
        listeners.delete(id);
        throw error;
      }
      return {
        id,
        /** From now on so many deliveries may be unsettled; at 0 it pauses. */
        credit: (credit) => ask({ op: 'credit', id, credit }),
        /** Ends it; `forget` deletes the durable subscription behind it. */
        unsubscribe: (forget) => listeners.delete(id) && ask({ op: 'unsubscribe', id, forget }),
      };
    },
    /** Begins a transaction: `send`, `ack`, `nack`, `release`, then `commit` or `abort`. */
    async begin() {
      const transaction = `t${number + 1}`;
      await ask({ op: 'begin', transaction });
      const end = (op) => () => ask({ op, transaction });
      return { ...work(transaction), commit: end('commit'), abort: end('abort') };
    },
    /** Makes a queue (or topic) that lasts as long as the connection; its address. */
    temporary: (kind) => ask({ op: 'temporary', kind }).then((made) => made.destination),
    ping: () => ask({ op: 'ping' }),
    /** Takes leave: what was sent before is answered first. */
    close: () => ask({ op: 'disconnect' }).catch(() => {}).then(() => socket.close()),
    /** Called with replies to messages that were sent with `replyTo: '$reply'`. */
    onreply: undefined,
    /** Called when the connection has ended, whoever ended it, with the reason. */
    onclose: undefined,
    /** Called with errors that answer nothing that was asked. */
    onerror: undefined,
  };
  function take(said) {
    if (said.op === 'message') {
      listeners.get(said.id)?.(said.message, said);
      return;
    }
    if (said.op === 'end' || (said.op === 'closed' && said.id)) {
      const listener = listeners.get(said.id);
      listeners.delete(said.id);
      if (said.op === 'end') put({ op: 'unsubscribe', id: said.id, noReply: true });
      listener?.(undefined, said);
      return;
    }
    if (said.op === 'reply' && said.ref === undefined) {
      client.onreply?.(said.message);
      return;
    }
    if (said.op === 'closed') reason = problem(said);
    const waiting = asked.get(said.ref);
    asked.delete(said.ref);
    if (said.op !== 'error') waiting?.resolve(said);
    else if (waiting) waiting.reject(problem(said));
    else client.onerror?.(problem(said));
  }
  function hear({ data }) {
    heard = Date.now();
    // A listener that throws must not keep the others from what is theirs.
    try {
      take(JSON.parse(data));
    } catch (error) {
      (globalThis.reportError ?? console.error)(error);
    }
  }
  return new Promise((resolve, reject) => {
    socket.onopen = () => ask({ op: 'connect', user, password, clientId, host, heartbeat }).then((greeting) => {
      const beat = greeting.heartbeat && Math.max(heartbeat, greeting.heartbeat);
      if (beat) {
        timer = setInterval(() => {
          if (Date.now() - heard > 3 * beat) socket.close();
          else put({ op: 'ping' });
        }, greeting.heartbeat * 0.8);
      }
      resolve(Object.assign(client, { greeting }));
    }, (error) => {
      reject(error);
      socket.close();
    });
    socket.onmessage = hear;
    socket.onclose = () => {
      clearInterval(timer);
      for (const waiting of asked.values()) waiting.reject(reason);
      asked.clear();
      reject(reason);
      client.onclose?.(reason);
    };
  });
}
