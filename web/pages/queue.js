// One queue: how it is doing, what is in it, who takes from it, and what can be done to it.
import { Badge, Button, Empty, Head, Loaded, Stats, Table, Tabs, attempt, confirmed, html, useRef, useState } from '../ui.js';
import { adjust, destinationHref, go, href } from '../router.js';
import { bytes, compact, count, duration, perSecond, plural, text } from '../format.js';
import { get, post, remove, segment } from '../api.js';
import { Rates, Series, usePoll } from '../poll.js';
import { Chart } from '../chart.js';
import { Messages } from './messages.js';
import { QueueBadges } from './queues.js';

// Histories of queues that were looked at, so that coming back shows more than a point.
const histories = new Map();
function history(name) {
  const found = histories.get(name) ?? { series: new Series(['ready', 'unsettled', 'in', 'out']), rates: new Rates(['enqueued', 'delivered', 'acknowledged']) };
  histories.delete(name);
  histories.set(name, found);
  if (histories.size > 20) histories.delete(histories.keys().next().value);
  return found;
}

function Actions({ queue, path, refresh }) {
  const done = (work, said) => attempt(work, said).then(refresh);
  const purge = async () => {
    if (!await confirmed({ title: 'Purge this queue?', text: `${plural(queue.ready, 'message')} of ${queue.name} will be gone for good. Messages that consumers hold stay.`, action: 'Purge', danger: true })) return;
    done(() => post(`${path}/purge`), (result) => `${plural(result.removed, 'message')} removed`);
  };
  const erase = async () => {
    const inUse = queue.consumers ? ` ${plural(queue.consumers, 'consumer')} will lose it.` : '';
    if (!await confirmed({ title: 'Delete this queue?', text: `${queue.name} and the ${plural(queue.ready + queue.unsettled, 'message')} in it will be gone for good.${inUse}`, action: 'Delete', danger: true })) return;
    if (await attempt(() => remove(path), `${queue.name} deleted`)) go(['queues']);
  };
  const pause = async () => {
    if (!queue.paused && !await confirmed({ title: 'Pause this queue?', text: `${queue.name} goes on taking messages but hands none out until it is resumed, a restart of the broker included.`, action: 'Pause' })) return;
    done(() => post(`${path}/${queue.paused ? 'resume' : 'pause'}`), queue.paused ? 'Resumed' : 'Paused');
  };
  return html`<a class="button" href=${href(['publish'], { to: queue.destination })}>Publish</a>
    <a class="button" href=${href(['tail'], { from: queue.destination })}>Tail</a>
    <${Button} onClick=${pause}>${queue.paused ? 'Resume' : 'Pause'}<//>
    <${Button} kind="danger-quiet" disabled=${!queue.ready} onClick=${purge}>Purge<//>
    <${Button} kind="danger-quiet" onClick=${erase}>Delete<//>`;
}

function Consumers({ list }) {
  return html`<${Table} caption="Consumers" id=${(row) => `${row.connection} ${row.subscription}`} rows=${list}
    empty=${html`<${Empty} title="Nobody takes from this queue" />`} columns=${[
    { key: 'connection', title: 'Connection', render: (row) => html`<a class="mono" data-row href=${href(['connections', String(row.connection)])}>${row.connection}</a>` },
    { key: 'subscription', title: 'Subscription', render: (row) => html`<span class="mono cut">${text(row.subscription)}</span>` },
    { key: 'credit', title: 'Credit', num: true, render: (row) => count(row.credit) },
    { key: 'inFlight', title: 'In flight', num: true, render: (row) => count(row.inFlight) },
    { key: 'selector', title: 'Selector', low: 1, render: (row) => html`<code class="cut">${text(row.selector)}</code>` },
  ]} />`;
}

// Bindings may be plain patterns or objects; both are shown as far as they go.
function Binding({ of }) {
  if (typeof of === 'string') return html`<a class="mono" href=${destinationHref(of)}>${of}</a>`;
  const source = of.source ?? of.pattern ?? of.topic ?? of.from ?? of.destination;
  const rest = Object.entries(of).filter(([, value]) => value !== null && value !== source);
  return html`<a class="mono" href=${destinationHref(source)}>${source ?? ''}</a> ${rest.map(([key, value]) => html`<${Badge} key=${key}>${key} ${text(value)}<//> `)}`;
}

export function Facts({ of }) {
  const rows = Object.entries(of ?? {});
  if (!rows.length) return html`<${Empty} title="Nothing set" />`;
  return html`<dl class="facts">${rows.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd class="mono">${text(value)}</dd></div>`)}</dl>`;
}

export function Queue({ name, query }) {
  const path = `/v1/queues/${segment(name)}`;
  const past = useRef(history(name)).current;
  const [messagesTurn, setTurn] = useState(0);
  const poll = usePoll(async (signal) => {
    const queue = await get(path, { signal });
    const flow = past.rates.of('all', queue);
    past.series.push(Date.now() / 1000, { ready: queue.ready, unsettled: queue.unsettled, in: flow.enqueued, out: flow.acknowledged });
    return { ...queue, flow };
  }, name);
  const tab = query.tab || 'messages';
  const refresh = () => {
    poll.refresh();
    setTurn((n) => n + 1);
  };
  if (poll.fresh && poll.error?.status === 404) {
    return html`<${Head} title=${name} mono /><${Empty} title="There is no such queue"><p>It may have been deleted, or went away when nobody used it. <a href=${href(['queues'])}>All queues</a></p><//>`;
  }
  return html`<nav class="crumbs" aria-label="Where"><a href=${href(['queues'])}>Queues</a></nav>
    <${Loaded} poll=${poll} skeleton=${10}>${(queue) => {
    const data = past.series.data();
    return html`<${Head} title=${name} mono badges=${html`<${QueueBadges} queue=${queue} />${queue.declared && html`<${Badge} title="Stays when nobody uses it">declared<//>`}
        ${queue.durability && html`<${Badge} title="Durability">${queue.durability}<//>`}`}><${Actions} queue=${queue} path=${path} refresh=${refresh} /><//>
      <${Stats} items=${[
    ['Ready', count(queue.ready), `oldest ${duration(queue.oldestMs)}`],
    ['Unsettled', count(queue.unsettled), 'with consumers'],
    ['Consumers', count(queue.consumers), '', queue.ready && !queue.consumers ? 'warn' : ''],
    ['In', perSecond(queue.flow.enqueued), `${compact(queue.enqueued)} in all`],
    ['Out', perSecond(queue.flow.acknowledged), `${compact(queue.acknowledged)} in all`],
    ['Size', bytes(queue.bytes), queue.paged ? `${compact(queue.paged)} on disk only` : `${compact(queue.redelivered)} redelivered`],
  ]} />
      <div class="grid two charts">
        <section class="card"><${Chart} title="Messages held" height=${110} data=${[data[0], data[1], data[2]]} lines=${[{ label: 'ready', colour: '--c1', fill: true }, { label: 'unsettled', colour: '--c4' }]} /></section>
        <section class="card"><${Chart} title="Messages per second" height=${110} data=${[data[0], data[3], data[4]]} lines=${[{ label: 'in', colour: '--c1' }, { label: 'out', colour: '--c3' }]} /></section>
      </div>
      <${Tabs} label="About the queue" value=${tab} onChange=${(to) => adjust({ tab: to === 'messages' ? '' : to, message: '' })} tabs=${[
    ['messages', 'Messages', compact(queue.ready + queue.unsettled)], ['consumers', 'Consumers', count(queue.consumersList?.length ?? queue.consumers)],
    ['bindings', 'Bindings', count(queue.bindings?.length ?? 0)], ['policy', 'Policy']]} />
      ${tab === 'messages' && html`<${Messages} queue=${name} query=${query} turn=${messagesTurn} onChange=${refresh} dead=${queue.kind === 'dead-letter'} />`}
      ${tab === 'consumers' && html`<${Consumers} list=${queue.consumersList ?? []} />`}
      ${tab === 'bindings' && (queue.bindings?.length ? html`<ul class="plain-list">${queue.bindings.map((one, i) => html`<li key=${i}><${Binding} of=${one} /></li>`)}</ul>`
    : html`<${Empty} title="No topic is bound to this queue"><p>It gets what is sent to its own name.</p><//>`)}
      ${tab === 'policy' && html`<${Facts} of=${queue.policy} />`}`;
  }}<//>`;
}
