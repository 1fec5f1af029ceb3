// Who is connected, with what, and how to make somebody go.
import { Badge, Button, Empty, Head, Loaded, Pager, Search, Stats, Table, attempt, confirmed, html, useRef } from '../ui.js';
import { adjust, destinationHref, go, href } from '../router.js';
import { ago, bytes, compact, count, perSecond, plural, rate, text, time } from '../format.js';
import { get, remove, segment } from '../api.js';
import { Rates, usePoll } from '../poll.js';

const LIMIT = 100;

async function close(id, peer) {
  return await confirmed({ title: 'Close this connection?', text: `${peer} will be cut off. Most clients connect again at once; what it has not acknowledged goes to others.`, action: 'Close it', danger: true })
    && attempt(() => remove(`/v1/connections/${segment(id)}`), `Connection ${id} closed`);
}

export function Connections({ query }) {
  const { filter = '', after = '' } = query;
  const page = Number(query.page) || 1;
  const rates = useRef(new Rates(['published', 'delivered'])).current;
  const poll = usePoll((signal) => get('/v1/connections', { query: { limit: LIMIT, filter, after }, signal }), `${filter}|${after}`);
  const flow = (row) => rates.of(row.id, row);
  return html`<${Head} title="Connections" sub=${poll.fresh && poll.data ? plural(poll.data.total, 'connection') : ''} />
    <div class="toolbar"><${Search} value=${filter} label="Filter connections" placeholder="Filter by peer, user or client id" onChange=${(value) => adjust({ filter: value, after: '', page: '' })} />
      <span class="gap" />${poll.data && html`<${Pager} list=${poll.data} page=${page} limit=${LIMIT} onMove=${adjust} />`}</div>
    <${Loaded} poll=${poll}>${(list) => html`<${Table} caption="Connections" id=${(row) => row.id} rows=${list.items}
      empty=${html`<${Empty} title=${filter ? 'No connection matches' : 'Nobody is connected'}>${!filter && html`<p><a href=${href(['try'])}>Connect from this browser</a></p>`}<//>`} columns=${[
    { key: 'peer', title: 'Peer', render: (row) => html`<a class="mono cut" data-row href=${href(['connections', String(row.id)])} title=${row.peer}>${row.peer}</a>` },
    { key: 'protocol', title: 'Protocol', width: 'w-user', render: (row) => html`<${Badge}>${row.protocol}<//>` },
    { key: 'client', title: 'Client id', low: 1, render: (row) => html`<span class="mono cut" title=${row.clientId}>${text(row.clientId)}</span>` },
    { key: 'user', title: 'User', low: 2, width: 'w-user', render: (row) => html`<span class="cut">${text(row.user)}</span>` },
    { key: 'subscriptions', title: 'Subs', num: true, width: 'w-small', low: 2, render: (row) => count(row.subscriptions) },
    { key: 'in', title: 'In /s', num: true, width: 'w-small', low: 1, render: (row) => rate(flow(row).published) },
    { key: 'out', title: 'Out /s', num: true, width: 'w-small', low: 1, render: (row) => rate(flow(row).delivered) },
    { key: 'unsettled', title: 'Unsettled', num: true, low: 3, render: (row) => count(row.unsettled) },
    { key: 'since', title: 'Since', num: true, low: 2, width: 'w-wide', render: (row) => html`<span title=${time(row.since)}>${ago(row.since)}</span>` },
    { key: 'do', title: html`<span class="unseen">Actions</span>`, width: 'w-do', render: (row) => html`<${Button} kind="danger-quiet small" aria-label=${`Close the connection of ${row.peer}`} onClick=${() => close(row.id, row.peer).then(poll.refresh)}>Close<//>` },
  ]} />`}<//>`;
}

export function Connection({ name: id }) {
  const rates = useRef(new Rates(['published', 'delivered'])).current;
  const poll = usePoll((signal) => get(`/v1/connections/${segment(id)}`, { signal }), id);
  if (poll.fresh && poll.error?.status === 404) {
    return html`<${Head} title=${`Connection ${id}`} /><${Empty} title="This connection has ended"><p><a href=${href(['connections'])}>All connections</a></p><//>`;
  }
  return html`<nav class="crumbs" aria-label="Where"><a href=${href(['connections'])}>Connections</a></nav><${Loaded} poll=${poll}>${(one) => {
    const flow = rates.of(id, one);
    return html`<${Head} title=${one.clientId || one.peer} mono badges=${html`<${Badge}>${one.protocol}<//>`}>
        <${Button} kind="danger-quiet" onClick=${() => close(one.id, one.peer).then((went) => went && go(['connections']))}>Close the connection<//><//>
      <${Stats} items=${[
    ['In', perSecond(flow.published), `${compact(one.published)} in all`],
    ['Out', perSecond(flow.delivered), `${compact(one.delivered)} in all`],
    ['Unsettled', count(one.unsettled), 'not acknowledged yet'],
    ['Waiting to be sent', bytes(one.outboxBytes), 'in its outbox'],
    ['Connected', ago(one.since), time(one.since)],
  ]} />
      <dl class="facts card">${[['id', one.id], ['peer', one.peer], ['listener', one.listener], ['user', one.user], ['client id', one.clientId]].map(([key, value]) => html`
        <div key=${key}><dt>${key}</dt><dd class="mono">${text(value)}</dd></div>`)}</dl>
      <h2>Subscriptions</h2>
      <${Table} caption="Subscriptions" id=${(row) => `${row.destination} ${row.selector}`} rows=${one.subscriptionsList ?? []} empty=${html`<${Empty} title="It subscribes to nothing" />`} columns=${[
    { key: 'destination', title: 'Destination', render: (row) => html`<a class="mono cut" data-row href=${destinationHref(row.destination)}>${row.destination}</a>` },
    { key: 'selector', title: 'Selector', low: 1, render: (row) => html`<code class="cut">${text(row.selector)}</code>` },
    { key: 'credit', title: 'Credit', num: true, render: (row) => count(row.credit) },
    { key: 'inFlight', title: 'In flight', num: true, render: (row) => count(row.inFlight) },
  ]} />`;
  }}<//>`;
}
