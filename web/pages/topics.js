// Topics: who listens, what is kept, and which queues get a copy.
import { Badge, Button, Empty, Head, Loaded, Pager, Search, Stats, Table, attempt, confirmed, html, useRef } from '../ui.js';
import { adjust, destinationHref, href } from '../router.js';
import { compact, count, perSecond, plural, rate, text } from '../format.js';
import { get, remove, segment } from '../api.js';
import { Rates, usePoll } from '../poll.js';

const LIMIT = 100;

const TopicBadges = ({ topic }) => html`${topic.retained && html`<${Badge} title="The last value is kept for new subscribers">retained<//>`}
  ${topic.virtual && html`<${Badge} title="Consumer queues get copies">virtual<//>`}`;

export function Topics({ query }) {
  const { filter = '', after = '' } = query;
  const page = Number(query.page) || 1;
  const rates = useRef(new Rates(['published'])).current;
  const poll = usePoll((signal) => get('/v1/topics', { query: { limit: LIMIT, filter, after }, signal }), `${filter}|${after}`);
  return html`<${Head} title="Topics" sub=${poll.fresh && poll.data ? plural(poll.data.total, 'topic') : ''} />
    <div class="toolbar"><${Search} value=${filter} label="Filter topics by name" placeholder="Filter by name, * for anything" onChange=${(value) => adjust({ filter: value, after: '', page: '' })} />
      <span class="gap" />${poll.data && html`<${Pager} list=${poll.data} page=${page} limit=${LIMIT} onMove=${adjust} />`}</div>
    <${Loaded} poll=${poll} skeleton=${12}>${(list) => html`<${Table} caption="Topics" id=${(row) => row.name} rows=${list.items}
      empty=${html`<${Empty} title=${filter ? 'No topic matches' : 'No topics yet'}>${!filter && html`<p>They come into being with the first message or subscriber. <a href=${href(['try'])}>Try it in the browser</a>.</p>`}<//>`} columns=${[
    { key: 'name', title: 'Name', render: (row) => html`<span class="name-cell"><a class="mono cut" data-row href=${href(['topics', row.name])} title=${row.name}>${row.name}</a><${TopicBadges} topic=${row} /></span>` },
    { key: 'subscribers', title: 'Subscribers', num: true, render: (row) => html`<span class=${row.subscribers ? '' : 'muted'}>${count(row.subscribers)}</span>` },
    { key: 'rate', title: 'In /s', num: true, low: 1, render: (row) => html`<span class="muted">${rate(rates.of(row.name, row).published)}</span>` },
    { key: 'published', title: 'Published', num: true, render: (row) => compact(row.published) },
  ]} />`}<//>`;
}

// Subscribers and bound queues come as names or as objects.
function Parties({ list, title, none }) {
  return html`<section class="card"><h2>${title} <span class="muted">${count(list.length)}</span></h2>${list.length === 0 ? html`<p class="muted">${none}</p>`
    : html`<ul class="plain-list">${list.map((one, i) => html`<li key=${i}><${Party} of=${one} /></li>`)}</ul>`}</section>`;
}

function Party({ of }) {
  if (typeof of === 'string') return html`<a class="mono" href=${destinationHref(of) ?? destinationHref(`queue://${of}`)}>${of}</a>`;
  const { connection, queue, destination, client, ...rest } = of;
  const where = destination ?? (queue && (queue.includes('://') ? queue : `queue://${queue}`));
  return html`${connection !== undefined && connection !== null && html`<a class="mono" href=${href(['connections', String(connection)])}>connection ${connection}</a> `}
    ${where && html`<a class="mono" href=${destinationHref(where)}>${where}</a> `}${client && html`<span class="mono">${client}</span> `}
    ${Object.entries(rest).filter(([, value]) => value !== null && value !== false && value !== '').map(([key, value]) => html`<${Badge} key=${key}>${key} ${text(value)}<//> `)}`;
}

export function Topic({ name }) {
  const path = `/v1/topics/${segment(name)}`;
  const rates = useRef(new Rates(['published'])).current;
  const poll = usePoll((signal) => get(path, { signal }), name);
  if (poll.fresh && poll.error?.status === 404) {
    return html`<${Head} title=${name} mono /><${Empty} title="There is no such topic"><p>It goes when nobody uses it. <a href=${href(['topics'])}>All topics</a></p><//>`;
  }
  const clear = async () => {
    if (!await confirmed({ title: 'Clear the retained message?', text: `New subscribers of ${name} will get no last value.`, action: 'Clear', danger: true })) return;
    attempt(() => remove(`${path}/retained`), 'Retained message cleared').then(poll.refresh);
  };
  return html`<nav class="crumbs" aria-label="Where"><a href=${href(['topics'])}>Topics</a></nav><${Loaded} poll=${poll}>${(topic) => html`
    <${Head} title=${name} mono badges=${html`<${TopicBadges} topic=${topic} />`}>
      <a class="button" href=${href(['publish'], { to: `topic://${name}` })}>Publish</a><a class="button" href=${href(['tail'], { from: `topic://${name}` })}>Tail</a>
      <${Button} kind="danger-quiet" disabled=${!topic.retained} onClick=${clear}>Clear retained<//><//>
    <${Stats} items=${[['Subscribers', count(topic.subscribers)], ['Published', compact(topic.published)], ['Rate', perSecond(rates.of(name, topic).published)]]} />
    <div class="grid two"><${Parties} title="Subscribers" none="Nobody listens right now." list=${topic.subscribersList ?? topic.subscriptions ?? []} />
      <${Parties} title="Queues that get a copy" none="No queue is bound to this topic." list=${topic.boundQueues ?? topic.queues ?? topic.bindings ?? []} /></div>`}<//>`;
}
