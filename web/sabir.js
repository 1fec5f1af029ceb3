// A client of the JSON protocol over WebSocket (sub-protocol `sabir.json`), for browsers and
// for any other place with a WebSocket. Each call is a promise of the broker's answer; a
// refusal rejects it with an Error that has the stable `code`.
//   const broker = await connect('ws://127.0.0.1:8161/ws', { user, password });
//   await broker.subscribe('topic://news.>', (message) => console.log(message.body));
//   await broker.send({ destination: 'topic://news.sport', body: 'hello' });

// Both sides say something at least this often, so that a dead connection is noticed.
const BEAT_MS = 10_000;

/** Opens a connection. `host` is the virtual host; `WebSocket` the class to use. */
export function connect(url, { user, password, clientId, host, WebSocket: Socket = WebSocket } = {}) {
  const socket = new Socket(url, ['sabir.json']);
  const asked = new Map();
  const listeners = new Map();
  let number = 0;
  let heard = Date.now();
  let timer;
  const put = (object) => socket.send(JSON.stringify(object));
  const ask = (object) => new Promise((resolve, reject) => {
    if (socket.readyState !== 1) {
      reject(new Error('the connection is closed'));
      return;
    }
    number += 1;
    asked.set(number, { resolve, reject });
    put({ ...object, ref: number });
  });
  const client = {
    /** Sends a message, an envelope with `destination`: `{ id, position, durability }`. */
    send: (message) => ask({ op: 'send', message }),
    /** Sends and waits for the reply, for at most `timeout` ms. */
    request: (message, timeout) => ask({ op: 'request', message, timeout }).then((reply) => reply.message),
    /**
     * Calls `listener(message, delivery)` for each message. Options: `ack` ('auto', 'client',
     * 'individual'), `credit`, `selector`, `durable`, `browse`. A subscription that the broker
     * ends, as a browse at its end, calls it once more without a message.
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
      return { id, unsubscribe: () => listeners.delete(id) && ask({ op: 'unsubscribe', id }) };
    },
    ack: (deliveryId) => ask({ op: 'ack', deliveryId }),
    nack: (deliveryId, requeue) => ask({ op: 'nack', deliveryId, requeue }),
    close: () => socket.close(),
    /** Called when the connection has ended, whoever ended it. */
    onclose: undefined,
  };
  function take(said) {
    if (said.op === 'message') listeners.get(said.id)?.(said.message, said);
    else if (said.op === 'closed' && said.id) listeners.get(said.id)?.(undefined, said);
    const waiting = asked.get(said.ref);
    asked.delete(said.ref);
    if (said.op === 'error') waiting?.reject(Object.assign(new Error(said.message), { code: said.code, field: said.field }));
    else waiting?.resolve(said);
  }
  return new Promise((resolve, reject) => {
    socket.onopen = () => ask({ op: 'connect', user, password, clientId, host, heartbeat: BEAT_MS }).then((greeting) => {
      timer = setInterval(() => {
        if (greeting.heartbeat && Date.now() - heard > 3 * Math.max(BEAT_MS, greeting.heartbeat)) socket.close();
        else put({ op: 'ping' });
      }, BEAT_MS * 0.8);
      resolve(Object.assign(client, { greeting }));
    }, (error) => {
      reject(error);
      socket.close();
    });
    socket.onmessage = ({ data }) => {
      heard = Date.now();
      for (const line of data.split('\n')) if (line) take(JSON.parse(line));
    };
    socket.onclose = () => {
      clearInterval(timer);
      const gone = new Error('the connection is closed');
      for (const waiting of asked.values()) waiting.reject(gone);
      asked.clear();
      reject(gone);
      client.onclose?.();
    };
  });
}
