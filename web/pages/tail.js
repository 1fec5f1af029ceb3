// What arrives at a destination, as it arrives, over a WebSocket.
import { Badge, Button, Empty, Field, Head, Search, Select, html, useEffect, useRef, useState } from '../ui.js';
import { adjust, destinationHref, vhost } from '../router.js';
import { bodyText, clock, count, perSecond, text } from '../format.js';
import { Body, Headers } from './message.js';
import { DestinationInput } from './destination-input.js';
import { connect } from '../sabir.js';
import { Rates } from '../poll.js';

const KEPT = 500;
const SEEN = 5000;
export const socketUrl = (path) => `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`;

// Follows `from` until stopped: connects again when the connection is lost. A queue that is
// only looked at is browsed again and again, and what was seen before is left out.
function follow(from, take, onMessage, onState) {
  let over = false;
  let client;
  let timer;
  const seen = new Set();
  const looking = from.startsWith('queue://') && !take;
  const again = (work, ms) => {
    if (!over) timer = setTimeout(work, ms);
  };
  async function browse() {
    const subscription = await client.subscribe(from, (message) => {
      if (!message) {
        again(() => browse().catch(() => {}), 1500);
        return;
      }
      if (seen.has(message.id)) return;
      seen.add(message.id);
      if (seen.size > SEEN) seen.delete(seen.values().next().value);
      onMessage(message);
    }, { browse: true });
    return subscription;
  }
  async function begin() {
    try {
      client = await connect(socketUrl('/ws'), vhost() === '/' ? {} : { host: vhost() });
      if (over) {
        client.close();
        return;
      }
      client.onclose = () => {
        onState('lost');
        again(begin, 2000);
      };
      if (looking) await browse();
      else await client.subscribe(from, (message) => message && onMessage(message));
      onState('live');
    } catch (error) {
      if (client) client.onclose = undefined;
      client?.close();
      if (over) return;
      if (error.code) onState('failed', error);
      else {
        onState('lost');
        again(begin, 2000);
      }
    }
  }
  onState('connecting');
  begin();
  return () => {
    over = true;
    clearTimeout(timer);
    if (client) {
      client.onclose = undefined;
      client.close();
    }
  };
}

const STATES = { off: ['', 'Not running'], connecting: ['', 'Connecting'], live: ['good', 'Live'], lost: ['bad', 'Connection lost, trying again'], failed: ['bad', 'Refused'] };

export function Tail({ query }) {
  const [from, setFrom] = useState(query.from || 'topic://');
  const [state, setState] = useState({ name: 'off' });
  const [paused, setPaused] = useState(false);
  const [rows, setRows] = useState([]);
  const [held, setHeld] = useState(0);
  const [open, setOpen] = useState();
  const [words, setWords] = useState('');
  const [take, setTake] = useState(false);
  const all = useRef({ total: 0, fresh: [], paused: false }).current;
  const rates = useRef(new Rates(['n'])).current;
  const [flow, setFlow] = useState();
  const running = query.on === '1';
  all.paused = paused;
  const valid = /^(queue|topic):\/\/.+/.test(query.from ?? '');
  useEffect(() => {
    if (!running || !valid) {
      setState({ name: 'off' });
      return undefined;
    }
    return follow(query.from, take, (message) => {
      all.total += 1;
      all.fresh.push({ key: all.total, at: Date.now(), message });
      if (all.fresh.length > KEPT) all.fresh.shift();
    }, (name, error) => setState({ name, error }));
  }, [running, valid, query.from, take]);
  // Drawn a few times a second, however many arrive.
  useEffect(() => {
    const timer = setInterval(() => {
      if (!all.paused && all.fresh.length) {
        const fresh = all.fresh.splice(0).reverse();
        setRows((old) => [...fresh, ...old].slice(0, KEPT));
      }
      setHeld(all.fresh.length);
      setFlow(rates.of('all', { n: all.total }).n);
    }, 250);
    return () => clearInterval(timer);
  }, []);
  const begin = (event) => {
    event.preventDefault();
    setRows([]);
    all.fresh.length = 0;
    adjust({ from, on: running && from === query.from ? '' : '1' });
  };
  const [tone, says] = STATES[state.name];
  const shown = words ? rows.filter(({ message }) => `${message.destination} ${bodyText(message) ?? ''}`.toLowerCase().includes(words.toLowerCase())) : rows;
  const queue = from.startsWith('queue://');
  return html`<${Head} title="Live tail" badges=${html`<span role="status" aria-live="polite"><${Badge} tone=${tone}>${says}<//></span>`} />
    <form class="toolbar tall" onSubmit=${begin}>
      <${Field} label="Destination" wide><${DestinationInput} value=${from} onInput=${setFrom} wildcards required placeholder="topic://news.> or queue://orders" /><//>
      ${queue && html`<${Field} label="Messages of the queue"><${Select} value=${take ? 'take' : 'look'} options=${[['look', 'stay where they are'], ['take', 'are taken out of it']]} onChange=${(value) => setTake(value === 'take')} /><//>`}
      <${Button} kind="primary" type="submit">${running && from === query.from ? 'Stop' : 'Start'}<//>
    </form>
    ${queue && take && html`<p class="hint warn-text">This page consumes: what it shows is gone from the queue.</p>`}
    ${state.error && html`<div class="trouble" role="alert"><p>${state.error.message}. <code>${state.error.code}</code></p></div>`}
    <div class="toolbar"><${Search} value=${words} label="Show only messages with this text" placeholder="Only with this text" wait=${100} onChange=${setWords} />
      <span class="muted num">${count(all.total)} so far${flow !== undefined && `, ${perSecond(flow)}`}</span><span class="gap" />
      <${Button} onClick=${() => setPaused(!paused)} disabled=${!running && !rows.length}>${paused ? `Go on (${held === KEPT ? `${KEPT}+` : held} new)` : 'Hold'}<//>
      <${Button} disabled=${!rows.length} onClick=${() => setRows([])}>Clear<//></div>
    ${shown.length === 0 ? html`<${Empty} title=${running ? (words ? 'Nothing with this text yet' : 'Waiting for messages') : 'Choose a destination and start'}>${!running && html`<p>Topics may have wildcards: <code>*</code> for one level, <code>${'>'}</code> for the rest.</p>`}<//>`
    : html`<ol class="tail" aria-label="Messages, newest first">${shown.map(({ key, at, message }) => html`<li key=${key} class=${open === key ? 'open' : ''}>
      <button type="button" class="tail-row" aria-expanded=${open === key} onClick=${() => setOpen(open === key ? undefined : key)}><time class="mono muted">${clock(at)}</time>
        <span class="mono cut tail-from">${message.destination}</span><span class="cut tail-body">${bodyText(message) ?? 'binary'}</span><span class="muted cut tail-type">${text(message.contentType)}</span></button>
      ${open === key && html`<div class="tail-more"><p><a class="mono" href=${destinationHref(message.destination)}>${message.destination}</a></p><${Body} message=${message} /><${Headers} message=${message} /></div>`}</li>`)}</ol>`}`;
}
