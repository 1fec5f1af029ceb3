// Durable subscriptions: what is kept for clients while they are away.
import { Badge, Button, Dialog, Empty, Field, Head, Loaded, Pager, Search, Table, attempt, confirmed, html, useState } from '../ui.js';
import { adjust, destinationHref, href } from '../router.js';
import { count, plural, text } from '../format.js';
import { get, put, remove, segment } from '../api.js';
import { usePoll } from '../poll.js';

const LIMIT = 100;

function New({ onClose, onDone }) {
  const [error, setError] = useState();
  const submit = async (event) => {
    event.preventDefault();
    const form = Object.fromEntries(new FormData(event.currentTarget));
    try {
      await put(`/v1/subscriptions/${segment(form.client)}/${segment(form.name)}`, { topic: form.topic, ...(form.selector ? { selector: form.selector } : {}) });
      onDone();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title="Make a durable subscription" onClose=${onClose}><form onSubmit=${submit}>
    <p class="hint">From now on messages are kept for it, before its client connects for the first time.</p>
    <${Field} label="Client id"><input name="client" class="mono" required autofocus spellcheck="false" autocapitalize="off" /><//>
    <${Field} label="Name"><input name="name" class="mono" required spellcheck="false" autocapitalize="off" /><//>
    <${Field} label="Topic" hint="Wildcards: * for one level, > for the rest"><input name="topic" class="mono" required spellcheck="false" autocapitalize="off" /><//>
    <${Field} label="Selector" hint="Optional: only messages that it is true for" error=${error?.message}><input name="selector" class="mono" spellcheck="false" autocapitalize="off" /><//>
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit">Make it<//></footer></form><//>`;
}

export function Subscriptions({ query }) {
  const { filter = '', after = '' } = query;
  const page = Number(query.page) || 1;
  const [making, setMaking] = useState(false);
  const poll = usePoll((signal) => get('/v1/subscriptions', { query: { limit: LIMIT, filter, after }, signal }), `${filter}|${after}`);
  const erase = async (row) => {
    if (!await confirmed({ title: 'Delete this subscription?', text: `${row.name} of ${row.client} and the ${plural(row.ready, 'message')} kept for it will be gone for good.`, action: 'Delete', danger: true })) return;
    attempt(() => remove(`/v1/subscriptions/${segment(row.client)}/${segment(row.name)}`), 'Subscription deleted').then(poll.refresh);
  };
  return html`<${Head} title="Subscriptions" sub=${poll.fresh && poll.data ? plural(poll.data.total, 'durable subscription') : ''}><${Button} kind="primary" onClick=${() => setMaking(true)}>New subscription<//><//>
    <div class="toolbar"><${Search} value=${filter} label="Filter subscriptions" placeholder="Filter by client or name" onChange=${(value) => adjust({ filter: value, after: '', page: '' })} />
      <span class="gap" />${poll.data && html`<${Pager} list=${poll.data} page=${page} limit=${LIMIT} onMove=${adjust} />`}</div>
    <${Loaded} poll=${poll}>${(list) => html`<${Table} caption="Durable subscriptions" id=${(row) => `${row.client}\n${row.name}`} rows=${list.items}
      empty=${html`<${Empty} title=${filter ? 'No subscription matches' : 'No durable subscriptions'}>${!filter && html`<p>Clients make them when they subscribe durably, or you make one here ahead of time.</p>`}<//>`} columns=${[
    { key: 'client', title: 'Client', render: (row) => html`<span class="name-cell"><span class="mono cut" title=${row.client}>${row.client}</span>${row.connected ? html`<${Badge} tone="good">online<//>` : html`<${Badge}>away<//>`}</span>` },
    { key: 'name', title: 'Name', render: (row) => html`<span class="mono cut" title=${row.name}>${row.name}</span>` },
    { key: 'pattern', title: 'Topic', low: 1, render: (row) => html`<span class="mono cut" title=${row.pattern}>${row.pattern}</span>` },
    { key: 'selector', title: 'Selector', low: 2, render: (row) => html`<code class="cut">${text(row.selector)}</code>` },
    { key: 'ready', title: 'Kept', num: true, render: (row) => { const to = row.queue && (destinationHref(row.queue) ?? href(['queues', row.queue])); return to ? html`<a data-row href=${to}>${count(row.ready)}</a>` : count(row.ready); } },
    { key: 'do', title: html`<span class="unseen">Actions</span>`, width: 'w-do', render: (row) => html`<${Button} kind="danger-quiet small" aria-label=${`Delete ${row.name} of ${row.client}`} onClick=${() => erase(row)}>Delete<//>` },
  ]} />`}<//>
    ${making && html`<${New} onClose=${() => setMaking(false)} onDone=${() => {
    setMaking(false);
    poll.refresh();
  }} />`}`;
}
