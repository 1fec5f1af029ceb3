// Where messages end up that could not be delivered, why, and the way back.
import { Empty, Head, Loaded, Pager, Search, Table, html, useState } from '../ui.js';
import { adjust, href } from '../router.js';
import { count, duration, plural } from '../format.js';
import { Messages } from './messages.js';
import { get } from '../api.js';
import { usePoll } from '../poll.js';

const LIMIT = 100;

export function DeadLetters({ name, query }) {
  return name === undefined ? html`<${List} query=${query} />` : html`<${One} name=${name} query=${query} />`;
}

function List({ query }) {
  const { filter = '', after = '' } = query;
  const page = Number(query.page) || 1;
  const poll = usePoll((signal) => get('/v1/dead-letters', { query: { limit: LIMIT, filter, after }, signal }), `${filter}|${after}`);
  return html`<${Head} title="Dead letters" sub=${poll.fresh && poll.data ? plural(poll.data.total ?? poll.data.items.length, 'queue') : ''} />
    <p class="lead">Messages that were rejected, tried too often or expired. Look at the cause, mend it, then send them back to where they came from.</p>
    <div class="toolbar"><${Search} value=${filter} label="Filter by name" placeholder="Filter by name" onChange=${(text) => adjust({ filter: text, after: '', page: '' })} />
      <span class="gap" />${poll.data && html`<${Pager} list=${poll.data} page=${page} limit=${LIMIT} onMove=${adjust} />`}</div>
    <${Loaded} poll=${poll}>${(list) => html`<${Table} caption="Queues of dead letters" id=${(row) => row.queue} rows=${list.items}
      empty=${html`<${Empty} title=${filter ? 'No queue matches' : 'No dead letters'}><p>${filter ? '' : 'Every message found its consumer so far.'}</p><//>`} columns=${[
    { key: 'queue', title: 'Queue', render: (row) => html`<a class="mono cut" data-row href=${href(['dead-letters', row.queue])}>${row.queue}</a>` },
    { key: 'messages', title: 'Messages', num: true, render: (row) => count(row.messages) },
    { key: 'oldest', title: 'Oldest', num: true, width: 'w-wide', render: (row) => duration(row.oldestMs) },
  ]} />`}<//>`;
}

function One({ name, query }) {
  const [turn, setTurn] = useState(0);
  return html`<nav class="crumbs" aria-label="Where"><a href=${href(['dead-letters'])}>Dead letters</a></nav>
    <${Head} title=${name} mono><a class="button" href=${href(['queues', name])}>The queue itself</a><//>
    <${Messages} dead queue=${name} query=${query} turn=${turn} onChange=${() => setTurn((n) => n + 1)} />`;
}
