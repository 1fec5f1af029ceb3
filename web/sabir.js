// A client of the JSON protocol over WebSocket (sub-protocol `sabir.json`).
const beat = 10_000;

export function connect(url, { user, password, host, WebSocket: Socket = WebSocket } = {}) {
  const socket = new Socket(url, ['sabir.json']);
  const waiting = new Map();
  const listening = new Map();
  let number = 0;
  let timer;
  const put = (object) => socket.send(JSON.stringify(object));
  const ask = (object) => new Promise((resolve, reject) => {
    number += 1;
    waiting.set(number, { resolve, reject });
    put({ ...object, ref: number });
  });
  const failure = (said) => Object.assign(new Error(said.message ?? 'refused'), { code: said.code });
  const client = {
    send: (message) => ask({ op: 'send', message }),
    request: (message, timeout) => ask({ op: 'request', message, timeout }).then((reply) => reply.message),
    ack: (deliveryId) => ask({ op: 'ack', deliveryId }),
    async subscribe(destination, listener, options = {}) {
      const id = `s${number + 1}`;
      listening.set(id, listener);
      await ask({ op: 'subscribe', id, destination, ...options });
      return { id, unsubscribe: () => listening.delete(id) && ask({ op: 'unsubscribe', id }) };
    },
    close: () => socket.close(),
    onclose: undefined,
  };
  const handle = (said) => {
    if (said.op === 'message') return listening.get(said.id)?.(said.message, said);
    if (said.op === 'closed') return said.id ? listening.get(said.id)?.(undefined, said) : undefined;
    const asked = waiting.get(said.ref);
    if (!asked) return undefined;
    waiting.delete(said.ref);
    return said.op === 'error' ? asked.reject(failure(said)) : asked.resolve(said);
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => {
      ask({ op: 'connect', user, password, host, heartbeat: beat }).then((greeting) => {
        timer = setInterval(() => put({ op: 'ping' }), beat * 0.8);
        resolve(Object.assign(client, { greeting }));
      }, reject);
    };
    socket.onmessage = ({ data }) => data.split('\n').filter(Boolean).forEach((line) => handle(JSON.parse(line)));
    socket.onclose = () => {
      clearInterval(timer);
      const gone = new Error('the connection is closed');
      for (const { reject: fail } of waiting.values()) fail(gone);
      waiting.clear();
      reject(gone);
      client.onclose?.();
    };
  });
}
