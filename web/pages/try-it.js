// The same topic in three protocols at once, each with the client library that everybody
// uses, over WebSocket from this page: one message crosses all three.
import '../vendor/stomp.js';
import { Badge, Button, Empty, Field, Head, html, useEffect, useRef, useState } from '../ui.js';
import { connect } from '../sabir.js';
import { socketUrl } from './tail.js';
import { vhost } from '../router.js';

const { Client: StompClient } = globalThis.StompJs;
const NAMES = { stomp: 'STOMP', mqtt: 'MQTT', json: 'JSON' };
const KEPT = 60;
const login = (who) => who.user || undefined;

// Each opens a connection, subscribes, and gives { send, close }. `on` gets what happens:
// state(name, error), wire(direction, text), message(body, trace).
const openers = {
  async stomp(topic, who, on) {
    const destination = `/topic/${topic}`;
    const client = new StompClient({
      brokerURL: socketUrl('/stomp'),
      connectHeaders: { ...(login(who) ? { login: who.user, passcode: who.password } : {}), ...(vhost() === '/' ? {} : { host: vhost() }) },
      reconnectDelay: 0,
      logRawCommunication: true,
      debug: (line) => {
        const found = /^(>>>|<<<) ([^]*)$/.exec(line);
        if (found && found[2].trim()) on.wire(found[1] === '>>>' ? 'out' : 'in', found[2].replaceAll('\0', '^@').replace(/^passcode:.*$/m, 'passcode:•••'));
      },
      onStompError: (frame) => on.state('failed', new Error(frame.headers.message)),
      onWebSocketClose: () => on.state('closed'),
      onConnect: () => {
        client.watchForReceipt('ready', () => on.state('open'));
        client.subscribe(destination, (message) => on.message(message.body, message.headers.trace), { receipt: 'ready' });
      },
    });
    client.activate();
    return {
      send: (body, trace) => client.publish({ destination, body, headers: { trace, 'content-type': 'text/plain' } }),
      close: () => client.deactivate(),
      address: `${socketUrl('/stomp')} · ${destination}`,
    };
  },
  async mqtt(topic, who, on) {
    // Large, so only fetched when somebody comes here.
    const { default: mqtt } = await import('../vendor/mqtt.js');
    const name = topic.replaceAll('.', '/');
    const client = mqtt.connect(socketUrl('/mqtt'), {
      protocolVersion: 5,
      reconnectPeriod: 0,
      username: login(who),
      password: login(who) ? who.password : undefined,
      clientId: `console-${Math.random().toString(36).slice(2, 10)}`,
      // The other kind of timer would start a worker from a blob, which the page forbids.
      timerVariant: 'native',
    });
    const show = (packet) => {
      const { cmd, topic: to, payload, qos, properties, reasonCode, subscriptions, clientId, granted } = packet;
      const said = { topic: to, qos: cmd === 'publish' ? qos : undefined, clientId, reasonCode, granted, subscriptions: subscriptions?.map((one) => one.topic),
        userProperties: properties?.userProperties, payload: payload?.length ? (typeof payload === 'string' ? payload : new TextDecoder().decode(payload)) : undefined };
      return [cmd.toUpperCase(), ...Object.entries(said).filter(([, value]) => value !== undefined && value !== null).map(([key, value]) => `${key}: ${typeof value === 'object' ? JSON.stringify(value) : value}`)].join('\n');
    };
    client.on('packetsend', (packet) => on.wire('out', show(packet)));
    client.on('packetreceive', (packet) => on.wire('in', show(packet)));
    client.on('connect', () => client.subscribe(name, { qos: 1 }, (error) => on.state(error ? 'failed' : 'open', error)));
    client.on('message', (_, payload, packet) => on.message(new TextDecoder().decode(payload), packet.properties?.userProperties?.trace));
    client.on('error', (error) => on.state('failed', error));
    client.on('close', () => on.state('closed'));
    return {
      send: (body, trace) => client.publish(name, body, { qos: 1, properties: { userProperties: { trace }, contentType: 'text/plain' } }),
      close: () => client.end(true),
      address: `${socketUrl('/mqtt')} · ${name}`,
    };
  },
  async json(topic, who, on) {
    const destination = `topic://${topic}`;
    class Tapped extends WebSocket {
      constructor(...given) {
        super(...given);
        this.addEventListener('message', ({ data }) => typeof data === 'string' && on.wire('in', data.trim()));
      }

      send(data) {
        on.wire('out', data.replace(/"password":"(?:[^"\\]|\\.)*"/, '"password":"•••"'));
        super.send(data);
      }
    }
    const client = await connect(socketUrl('/ws'), { user: login(who), password: login(who) && who.password, host: vhost() === '/' ? undefined : vhost(), WebSocket: Tapped });
    client.onclose = () => on.state('closed');
    await client.subscribe(destination, (message) => message && on.message(String(message.body), message.properties?.trace));
    on.state('open');
    return {
      send: (body, trace) => client.send({ destination, body, contentType: 'text/plain', properties: { trace } }),
      close: () => client.close(),
      address: `${socketUrl('/ws')} · ${destination}`,
    };
  },
};

function useWire(kind, topic, who, onMessage) {
  const [state, setState] = useState({ name: 'closed' });
  const [lines, setLines] = useState([]);
  const [on, setOn] = useState(true);
  const [turn, setTurn] = useState(0);
  const held = useRef();
  const told = useRef();
  told.current = onMessage;
  useEffect(() => {
    if (!on) return undefined;
    let over = false;
    let timer;
    let number = 0;
    const again = () => {
      clearTimeout(timer);
      timer = setTimeout(() => setTurn((n) => n + 1), 2000);
    };
    setState({ name: 'connecting' });
    const report = {
      state(name, error) {
        if (over) return;
        // What was refused stays refused; what was lost is tried again.
        setState((old) => (old.name === 'failed' && name === 'closed' ? old : { name, error }));
        if (name === 'closed') again();
      },
      wire: (direction, text) => !over && setLines((old) => [...old, { key: `${turn}.${number += 1}`, direction, text }].slice(-KEPT)),
      message: (body, trace) => !over && told.current(kind, body, trace),
    };
    const opening = openers[kind](topic, who, report).then((wire) => {
      held.current = wire;
      return wire;
    }, (error) => {
      report.state(error.code ? 'failed' : 'closed', error);
      return undefined;
    });
    return () => {
      over = true;
      clearTimeout(timer);
      held.current = undefined;
      opening.then((wire) => wire?.close());
    };
  }, [on, topic, who, turn]);
  return { kind, state: on ? state : { name: 'closed' }, lines, on, setOn, clear: () => setLines([]), send: (body, trace) => held.current?.send(body, trace), address: held.current?.address };
}

const SAYS = { connecting: ['', 'connecting'], open: ['good', 'connected'], closed: ['', 'not connected'], failed: ['bad', 'refused'] };

function Pane({ wire, onSend }) {
  const [tone, says] = SAYS[wire.state.name];
  const log = useRef();
  useEffect(() => {
    if (log.current) log.current.scrollTop = log.current.scrollHeight;
  }, [wire.lines]);
  const submit = (event) => {
    event.preventDefault();
    onSend(wire, new FormData(event.currentTarget).get('body'));
  };
  const name = NAMES[wire.kind];
  return html`<section class=${`card pane ${wire.kind}`} aria-label=${name}>
    <header><h2>${name}</h2><span role="status"><${Badge} tone=${tone}>${says}<//></span><span class="gap" /><${Button} kind="quiet small" onClick=${() => wire.setOn(!wire.on)}>${wire.on ? 'Disconnect' : 'Connect'}<//></header>
    <p class="mono muted address">${wire.address ?? '…'}</p>
    <form class="row" onSubmit=${submit}><input name="body" aria-label=${`Message to send over ${name}`} defaultValue=${`hello from ${name}`} required autocomplete="off" />
      <${Button} kind="primary" type="submit" disabled=${wire.state.name !== 'open'}>Send<//></form>
    ${wire.state.error && html`<p class="field-error" role="alert">${wire.state.error.message}</p>`}
    <div class="wire" ref=${log} tabindex="0" role="log" aria-label=${`What goes over the ${name} connection`}>${wire.lines.length === 0 ? html`<p class="muted">What goes over the connection is shown here.</p>`
    : wire.lines.map((line) => html`<pre key=${line.key} class=${line.direction}><span class="unseen">${line.direction === 'out' ? 'sent' : 'received'}</span>${line.text}</pre>`)}</div>
  </section>`;
}

// One message and when each of the three got it.
function Journey({ of }) {
  const all = ['stomp', 'mqtt', 'json'];
  const done = all.every((kind) => of.got[kind] !== undefined);
  return html`<li class=${`journey ${done ? 'done' : ''}`}><span class="journey-from"><${Badge} tone=${of.from}>${NAMES[of.from]}<//> <span class="cut">“${of.body}”</span></span>
    <span class="journey-to"><span aria-hidden="true">→</span>${all.map((kind) => html`<span key=${kind} class=${`hop ${kind} ${of.got[kind] === undefined ? '' : 'got'}`}>${NAMES[kind]}
      <b class="num">${of.got[kind] === undefined ? '…' : `${of.got[kind].toFixed(1)} ms`}</b></span>`)}</span></li>`;
}

const fresh = () => `try.${Math.random().toString(36).slice(2, 6)}`;

export function TryIt() {
  const [topic, setTopic] = useState(fresh);
  const [typed, setTyped] = useState(topic);
  const [who, setWho] = useState({ user: '', password: '' });
  const [journeys, setJourneys] = useState([]);
  const seen = (kind, body, trace) => setJourneys((old) => {
    const now = performance.now();
    const at = old.findIndex((one) => (trace ? one.trace === String(trace) : one.body === body && one.got[kind] === undefined));
    if (at < 0) return old;
    return old.map((one, i) => (i === at && one.got[kind] === undefined ? { ...one, got: { ...one.got, [kind]: now - one.began } } : one));
  });
  const wires = [useWire('stomp', topic, who, seen), useWire('mqtt', topic, who, seen), useWire('json', topic, who, seen)];
  const send = (wire, body) => {
    const trace = Math.random().toString(36).slice(2, 12);
    setJourneys((old) => [{ trace, from: wire.kind, body, began: performance.now(), got: {} }, ...old].slice(0, 6));
    wire.send(body, trace);
  };
  const change = (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setTopic(form.get('topic'));
    setWho({ user: form.get('user') ?? '', password: form.get('password') ?? '' });
    wires.forEach((wire) => wire.clear());
    setJourneys([]);
  };
  return html`<${Head} title="Try it" sub="one topic, three protocols, in this browser" />
    <form class="toolbar tall" onSubmit=${change}><${Field} label="Topic"><input name="topic" class="mono" value=${typed} onInput=${(event) => setTyped(event.currentTarget.value)} required pattern="[^\\s/+#*>]+" title="Levels joined by dots, no wildcards" spellcheck="false" autocapitalize="off" /><//>
      <${Field} label="User"><input name="user" placeholder="as this page" autocomplete="off" autocapitalize="off" /><//><${Field} label="Password"><input name="password" type="password" autocomplete="off" /><//>
      <${Button} type="submit">Connect again<//></form>
    <section class="card crossing" aria-live="polite" aria-label="Crossings"><h2>Crossings <span class="muted">time until each got it</span></h2>${journeys.length === 0
    ? html`<${Empty} title="Send something below"><p>It arrives at all three, whichever it was sent with.</p><//>` : html`<ol>${journeys.map((one) => html`<${Journey} key=${one.trace} of=${one} />`)}</ol>`}</section>
    <div class="grid three panes">${wires.map((wire) => html`<${Pane} key=${wire.kind} wire=${wire} onSend=${send} />`)}</div>`;
}
