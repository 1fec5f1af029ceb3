// All queues, a page at a time: the server filters, sorts and counts, so a hundred thousand
// are no more work for the browser than a hundred.
import { Badge, Button, Dialog, Empty, Field, Head, Loaded, Pager, Search, Select, Table, html, useRef, useState } from '../ui.js';
import { adjust, go, href } from '../router.js';
import { compact, count, duration, plural, rate } from '../format.js';
import { Rates, usePoll } from '../poll.js';
import { get, put, segment } from '../api.js';

export const LIMIT = 100;
const SORTS = [['name', 'Name'], ['-ready', 'Most ready'], ['-unsettled', 'Most unsettled'], ['-consumers', 'Most consumers']];
const KINDS = { durable: 'durable topic subscription', share: 'shared subscription', session: 'MQTT session', 'dead-letter': 'dead letters', queue: 'queue' };

export const QueueBadges = ({ queue }) => html`${queue.paused && html`<${Badge} tone="warn" title="Nothing is handed out while paused">paused<//>`}
  ${queue.kind !== 'queue' && html`<${Badge} title=${KINDS[queue.kind]}>${queue.kind}<//>`}`;

export function NewQueue({ onClose }) {
  const [error, setError] = useState();
  const submit = async (event) => {
    event.preventDefault();
    const name = new FormData(event.currentTarget).get('name').trim();
    try {
      await put(`/v1/queues/${segment(name)}`);
      go(['queues', name]);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title="Declare a queue" onClose=${onClose}><form onSubmit=${submit}>
    <${Field} label="Name" hint="Levels are joined by dots: shop.orders.new" error=${error?.message}><input name="name" class="mono" required autofocus spellcheck="false" autocapitalize="off" /><//>
    <p class="hint">Queues also come into being with the first message or consumer; a declared one stays when nobody uses it.</p>
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit">Declare<//></footer></form><//>`;
}

export function Queues({ query }) {
  const { filter = '', sort = 'name', after = '' } = query;
  const page = Number(query.page) || 1;
  const [making, setMaking] = useState(false);
  const rates = useRef(new Rates(['enqueued', 'acknowledged'])).current;
  const poll = usePoll((signal) => get('/v1/queues', { query: { limit: LIMIT, filter, sort: sort === 'name' ? '' : sort, after }, signal }), `${filter}|${sort}|${after}`);
  const flow = (row) => rates.of(row.name, row);
  return html`<${Head} title="Queues" sub=${poll.fresh && poll.data ? plural(poll.data.total, 'queue') : ''}><${Button} kind="primary" onClick=${() => setMaking(true)}>Declare a queue<//><//>
    <div class="toolbar"><${Search} value=${filter} label="Filter queues by name" placeholder="Filter by name, * for anything" onChange=${(text) => adjust({ filter: text, after: '', page: '' })} />
      <label class="inline">Order <${Select} value=${sort} options=${SORTS} onChange=${(by) => adjust({ sort: by === 'name' ? '' : by, after: '', page: '' })} /></label>
      <span class="gap" />${poll.data && html`<${Pager} list=${poll.data} page=${page} limit=${LIMIT} onMove=${adjust} />`}</div>
    <${Loaded} poll=${poll} skeleton=${12}>${(list) => html`<${Table} caption="Queues" id=${(row) => row.name} rows=${list.items}
      empty=${filter ? html`<${Empty} title="No queue matches"><p>Nothing here is called “${filter}”. <${Button} kind="quiet" onClick=${() => adjust({ filter: '', after: '', page: '' })}>Show all<//></p><//>`
    : html`<${Empty} title="No queues yet"><p>They come into being with the first message or consumer. <a href=${href(['publish'])}>Publish a message</a> or <a href=${href(['try'])}>try it in the browser</a>.</p><//>`}
      columns=${[
    { key: 'name', title: 'Name', render: (row) => html`<span class="name-cell"><a class="mono cut" data-row href=${href(['queues', row.name])} title=${row.name}>${row.name}</a><${QueueBadges} queue=${row} /></span>` },
    { key: 'ready', title: 'Ready', num: true, render: (row) => html`<span class=${row.ready ? '' : 'muted'}>${count(row.ready)}</span>` },
    { key: 'unsettled', title: 'Unsettled', num: true, low: 1, render: (row) => html`<span class=${row.unsettled ? '' : 'muted'}>${count(row.unsettled)}</span>` },
    { key: 'consumers', title: 'Consumers', num: true, render: (row) => html`<span class=${row.consumers ? '' : row.ready ? 'warn-text' : 'muted'}>${count(row.consumers)}</span>` },
    { key: 'in', title: 'In /s', num: true, low: 2, render: (row) => html`<span class="muted">${rate(flow(row).enqueued)}</span>` },
    { key: 'out', title: 'Out /s', num: true, low: 2, render: (row) => html`<span class="muted">${rate(flow(row).acknowledged)}</span>` },
    { key: 'oldest', title: 'Oldest', num: true, low: 2, width: 'w-wide', render: (row) => duration(row.oldestMs) },
    { key: 'total', title: 'Total in', num: true, low: 3, render: (row) => html`<span class="muted">${compact(row.enqueued)}</span>` },
  ]} />`}<//>
    ${making && html`<${NewQueue} onClose=${() => setMaking(false)} />`}`;
}
