// Webhooks: deliveries that the broker makes by calling a web address.
import { Badge, Button, Dialog, Empty, Field, Head, Loaded, Table, attempt, confirmed, html, useState } from '../ui.js';
import { get, put, remove, segment } from '../api.js';
import { plural, text } from '../format.js';
import { DestinationInput } from './destination-input.js';
import { destinationHref } from '../router.js';
import { usePoll } from '../poll.js';

function New({ onClose, onDone }) {
  const [error, setError] = useState();
  const [source, setSource] = useState('queue://');
  const submit = async (event) => {
    event.preventDefault();
    const { name, selector, secret, ...form } = Object.fromEntries(new FormData(event.currentTarget));
    try {
      await put(`/v1/webhooks/${segment(name)}`, { source, url: form.url, ...(selector ? { selector } : {}), ...(secret ? { secret } : {}) });
      onDone();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title="New webhook" onClose=${onClose}><form onSubmit=${submit}>
    <${Field} label="Name"><input name="name" class="mono" required autofocus spellcheck="false" autocapitalize="off" /><//>
    <${Field} label="From"><${DestinationInput} value=${source} onInput=${setSource} required wildcards /><//>
    <${Field} label="Address" hint="POST to this address, one message a time"><input name="url" type="url" class="mono" required placeholder="https://" /><//>
    <${Field} label="Selector" hint="Optional"><input name="selector" class="mono" spellcheck="false" /><//>
    <${Field} label="Secret" hint="Optional: signs each call" error=${error && `${error.field ? `${error.field}: ` : ''}${error.message}`}><input name="secret" type="password" autocomplete="off" /><//>
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit">Make it<//></footer></form><//>`;
}

export function Webhooks() {
  const [making, setMaking] = useState(false);
  const poll = usePoll((signal) => get('/v1/webhooks', { signal }), 'webhooks');
  const none = poll.fresh && [404, 501].includes(poll.error?.status);
  const erase = async (row) => {
    if (!await confirmed({ title: 'Delete this webhook?', text: `${row.name} will no longer call ${row.url}.`, action: 'Delete', danger: true })) return;
    attempt(() => remove(`/v1/webhooks/${segment(row.name)}`), `${row.name} deleted`).then(poll.refresh);
  };
  if (none) return html`<${Head} title="Webhooks" /><${Empty} title="This broker has no webhooks" />`;
  return html`<${Head} title="Webhooks" sub=${poll.data ? plural(poll.data.total ?? poll.data.items.length, 'webhook') : ''}><${Button} kind="primary" onClick=${() => setMaking(true)}>New webhook<//><//>
    <p class="lead">The broker calls an address for each message and takes a 2xx for an acknowledgement.</p>
    <${Loaded} poll=${poll}>${(list) => html`<${Table} caption="Webhooks" id=${(row) => row.name} rows=${list.items} empty=${html`<${Empty} title="No webhooks yet" />`} columns=${[
    { key: 'name', title: 'Name', render: (row) => html`<span class="name-cell"><span class="mono cut">${row.name}</span>${row.state && html`<${Badge} tone=${/fail|error/.test(row.state) ? 'bad' : ''}>${row.state}<//>`}</span>` },
    { key: 'source', title: 'From', low: 1, render: (row) => { const from = row.source ?? row.destination; return html`<a class="mono cut" data-row href=${destinationHref(from)}>${text(from)}</a>`; } },
    { key: 'url', title: 'Address', render: (row) => html`<span class="mono cut" title=${row.url}>${row.url}</span>` },
    { key: 'selector', title: 'Selector', low: 2, render: (row) => html`<code class="cut">${text(row.selector)}</code>` },
    { key: 'do', title: html`<span class="unseen">Actions</span>`, width: 'w-do', render: (row) => html`<${Button} kind="danger-quiet small" aria-label=${`Delete ${row.name}`} onClick=${() => erase(row)}>Delete<//>` },
  ]} />`}<//>
    ${making && html`<${New} onClose=${() => setMaking(false)} onDone=${() => {
    setMaking(false);
    poll.refresh();
  }} />`}`;
}
