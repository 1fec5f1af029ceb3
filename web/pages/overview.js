// How the broker is doing, at a glance: rates, depths, room, and where messages pile up.
import { Badge, Empty, Head, Loaded, Stats, Table, Trouble, html } from '../ui.js';
import { bytes, compact, count, duration, perSecond } from '../format.js';
import { Chart } from '../chart.js';
import { get } from '../api.js';
import { href } from '../router.js';
import { overview, series } from '../live.js';
import { usePoll } from '../poll.js';
import { useStore } from '../store.js';

const at = (...fields) => {
  const all = series.data();
  return [all[0], ...fields.map((field) => all[series.fields.indexOf(field) + 1])];
};

function Meter({ label, used, max, unbounded }) {
  const share = max ? Math.min(1, used / max) : undefined;
  const tone = share > 0.9 ? 'bad' : share > 0.75 ? 'warn' : '';
  return html`<div class="meter-row"><span>${label}</span>
    <span class="meter" role="img" aria-label=${max ? `${Math.round(share * 100)} percent` : 'no limit'}><i class=${tone} style=${{ width: `${(share ?? 0) * 100}%` }} /></span>
    <span class="num">${bytes(used)}${max ? html` <span class="muted">of ${bytes(max)}</span>` : !unbounded && html` <span class="muted">no limit</span>`}</span></div>`;
}

function Troubles({ data }) {
  const items = [['Redelivered', data.redelivered], ['Expired', data.expired], ['Dead-lettered', data.deadLettered, href(['dead-letters'])],
    ['Discarded', data.discarded], ['Refused', data.refused]];
  return html`<section class="card"><h2>Out of the ordinary <span class="muted">since the start</span></h2>
    <dl class="pairs">${items.map(([name, n, to]) => html`<div key=${name} class=${n ? '' : 'zero'}><dt>${to && n ? html`<a href=${to}>${name}</a>` : name}</dt><dd class="num">${count(n)}</dd></div>`)}</dl></section>`;
}

export function Overview() {
  const { data, rates, error } = useStore(overview);
  const busiest = usePoll((signal) => get('/v1/queues', { query: { sort: '-ready', limit: 8 }, signal }), 'busiest', { every: 4000 });
  if (!data) {
    return html`<${Head} title="Overview" />${error ? html`<${Trouble} error=${error} />`
      : html`<div class="skeleton" aria-busy="true" aria-label="Loading">${[1, 2, 3, 4].map((i) => html`<i key=${i} />`)}</div>`}`;
  }
  const protocols = Object.entries(data.connectionsByProtocol ?? {}).sort(([, a], [, b]) => b - a);
  return html`<${Head} title="Overview" sub=${`Sabir ${data.version}, up ${duration(data.uptimeMs)}`} />
    <${Stats} items=${[
    ['Published', perSecond(rates.published), `${compact(data.published)} in all`],
    ['Delivered', perSecond(rates.delivered), `${compact(data.delivered)} in all`],
    ['Acknowledged', perSecond(rates.acknowledged), `${compact(data.acknowledged)} in all`],
    ['Ready', compact(data.ready), 'waiting in queues'],
    ['Unsettled', compact(data.unsettled), 'with consumers'],
    ['Connections', count(data.connections), `${compact(data.sessions)} sessions`],
  ]} />
    <div class="grid two">
      <section class="card"><${Chart} title="Messages per second" data=${at('published', 'delivered', 'acknowledged')} lines=${[
    { label: 'published', colour: '--c1' }, { label: 'delivered', colour: '--c2' }, { label: 'acknowledged', colour: '--c3' }]} /></section>
      <section class="card"><${Chart} title="Messages held" data=${at('ready', 'unsettled')} lines=${[
    { label: 'ready', colour: '--c1', fill: true }, { label: 'unsettled', colour: '--c4' }]} /></section>
    </div>
    <div class="grid three">
      <section class="card"><h2>Room</h2>
        <${Meter} label="Messages in memory" used=${data.memoryBytes} max=${data.memoryBytesMax} />
        <${Meter} label="Message log" used=${data.storeBytes} max=${data.storeBytesMax} />
        <${Meter} label="Whole process" used=${data.residentBytes} unbounded />
      </section>
      <section class="card"><h2>What there is</h2><dl class="pairs">
        ${[['Queues', data.queues, 'queues'], ['Topics', data.topics, 'topics'], ['Subscriptions', data.subscriptions, 'subscriptions'], ['Connections', data.connections, 'connections']]
    .map(([name, n, to]) => html`<div key=${name}><dt><a href=${href([to])}>${name}</a></dt><dd class="num">${count(n)}</dd></div>`)}
        </dl><p class="chips">${protocols.map(([name, n]) => html`<${Badge} key=${name}>${name} ${compact(n)}<//>`)}</p></section>
      <${Troubles} data=${data} />
    </div>
    <section class="card"><h2>Where most is waiting</h2>
      <${Loaded} poll=${busiest} skeleton=${4}>${(list) => html`<${Table} caption="Queues with most messages ready" dense id=${(row) => row.name}
        rows=${list.items.filter((row) => row.ready > 0)} empty=${html`<${Empty} title="No queue holds a message that waits" />`} columns=${[
    { key: 'name', title: 'Queue', render: (row) => html`<a class="mono cut" data-row href=${href(['queues', row.name])} title=${row.name}>${row.name}</a>` },
    { key: 'ready', title: 'Ready', num: true, render: (row) => count(row.ready) },
    { key: 'unsettled', title: 'Unsettled', num: true, low: 1, render: (row) => count(row.unsettled) },
    { key: 'consumers', title: 'Consumers', num: true, render: (row) => (row.consumers ? count(row.consumers) : html`<${Badge} tone="warn">none<//>`) },
    { key: 'oldest', title: 'Oldest', num: true, low: 1, width: 'w-wide', render: (row) => duration(row.oldestMs) },
  ]} />`}<//></section>`;
}
