// The messages of a queue: a list to choose from, and what can be done with those chosen.
// Used for plain queues and, with causes and redrive, for dead letters.
import { Badge, Button, Dialog, Empty, Field, Loaded, Pager, Search, Table, attempt, confirmed, html, tell, useEffect, useState } from '../ui.js';
import { ago, bodyText, bytes, count, plural, text, time } from '../format.js';
import { get, post, segment } from '../api.js';
import { DestinationInput } from './destination-input.js';
import { Message } from './message.js';
import { adjust } from '../router.js';
import { usePoll } from '../poll.js';

const LIMIT = 50;

function preview(message) {
  const seen = bodyText(message);
  if (seen === undefined) return html`<span class="muted">binary</span>`;
  return seen === '' ? html`<span class="muted">empty</span>` : seen.slice(0, 160);
}

// What to do with: those ticked, those a selector finds, or all.
function Scope({ chosen, selector }) {
  return chosen.size ? plural(chosen.size, 'message') : selector ? html`what <code>${selector}</code> finds` : 'all messages';
}

const choice = (chosen, selector) => (chosen.size ? { sequences: [...chosen] } : selector ? { selector } : { all: true });

function MoveTo({ verb, path, chosen, selector, onClose, onDone }) {
  const [error, setError] = useState();
  const [to, setTo] = useState('queue://');
  const submit = async (event) => {
    event.preventDefault();
    try {
      const max = Number(new FormData(event.currentTarget).get('max'));
      const result = await post(`${path}/messages/${verb}`, { to, ...choice(chosen, selector), ...(max ? { max } : {}) });
      onDone(`${plural(result.moved ?? result.copied, 'message')} ${verb === 'move' ? 'moved' : 'copied'} to ${to}`);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title=${verb === 'move' ? 'Move messages' : 'Copy messages'} onClose=${onClose}><form onSubmit=${submit}>
    <p>${verb === 'move' ? 'Moves' : 'Copies'} <${Scope} chosen=${chosen} selector=${selector} />.</p>
    <${Field} label="To" error=${error?.message}><${DestinationInput} value=${to} onInput=${setTo} autofocus required /><//>
    ${!chosen.size && html`<${Field} label="At most" hint="Empty for no limit"><input name="max" type="number" min="1" inputmode="numeric" /><//>`}
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit">${verb === 'move' ? 'Move' : 'Copy'}<//></footer></form><//>`;
}

function Redrive({ queue, chosen, selector, onClose, onDone }) {
  const [error, setError] = useState();
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const rate = Number(new FormData(event.currentTarget).get('rate'));
    setBusy(true);
    try {
      const result = await post(`/v1/dead-letters/${segment(queue)}/redrive`, { ...choice(chosen, selector), ...(rate ? { rate } : {}) });
      onDone(result?.redriven === undefined ? 'Redrive begun' : `${plural(result.redriven, 'message')} sent back`);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  return html`<${Dialog} title="Send back where they came from" onClose=${onClose}><form onSubmit=${submit}>
    <p>Redrives <${Scope} chosen=${chosen} selector=${selector} />, each to its original destination.</p>
    <${Field} label="At most per second" hint="Empty to send them at once. A slow redrive is kind to consumers that just recovered." error=${error?.message}>
      <input name="rate" type="number" min="1" inputmode="numeric" autofocus /><//>
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit" busy=${busy}>Redrive<//></footer></form><//>`;
}

export function Messages({ queue, query, turn, onChange, dead }) {
  const path = `/v1/queues/${segment(queue)}`;
  const { selector = '', text: words = '', after = '' } = query;
  const page = Number(query.page) || 1;
  const open = query.message;
  const [chosen, setChosen] = useState(new Set());
  const [asking, setAsking] = useState();
  const key = `${queue}|${selector}|${words}|${after}|${turn}`;
  // While somebody chooses or reads, the list stays as it is.
  const poll = usePoll((signal) => get(`${path}/messages`, { query: { limit: LIMIT, after, selector, text: words }, signal }), key,
    { paused: chosen.size > 0 || Boolean(open) || Boolean(asking) });
  useEffect(() => setChosen(new Set()), [key]);
  const close = () => setAsking(undefined);
  const done = (said) => {
    close();
    setChosen(new Set());
    tell(said);
    onChange();
  };
  const erase = async () => {
    if (!await confirmed({ title: 'Delete messages?', text: chosen.size ? `${plural(chosen.size, 'message')} will be gone for good.` : `What “${selector}” finds will be gone for good.`, action: 'Delete', danger: true })) return;
    attempt(() => post(`${path}/messages/delete`, choice(chosen, selector)), (result) => `${plural(result.removed, 'message')} deleted`).then(() => {
      setChosen(new Set());
      onChange();
    });
  };
  const tick = (sequence, on) => setChosen((old) => {
    const next = new Set(old);
    if (on) next.add(sequence);
    else next.delete(sequence);
    return next;
  });
  const items = poll.fresh ? poll.data?.items ?? [] : [];
  const free = items.filter((row) => row.state !== 'unsettled');
  const all = free.length > 0 && free.every((row) => chosen.has(row.sequence));
  const some = chosen.size > 0 || Boolean(selector);
  const columns = [
    { key: 'tick', width: 'w-tick', title: html`<input type="checkbox" aria-label="All on this page" checked=${all} indeterminate=${!all && chosen.size > 0}
      onChange=${(event) => setChosen(new Set(event.currentTarget.checked ? free.map((row) => row.sequence) : []))} />`,
    render: (row) => html`<input type="checkbox" aria-label=${`Message ${row.sequence}`} checked=${chosen.has(row.sequence)} disabled=${row.state === 'unsettled'}
      onChange=${(event) => tick(row.sequence, event.currentTarget.checked)} />` },
    { key: 'sequence', title: 'Sequence', width: 'w-seq', render: (row) => html`<button type="button" class="linkish mono" data-row aria-expanded=${String(row.sequence) === open}
      onClick=${() => adjust({ message: String(row.sequence) === open ? '' : row.sequence })}>${row.sequence}</button>` },
    dead ? { key: 'cause', title: 'Cause', width: 'w-cause', render: (row) => html`<${Badge} tone="bad">${row.deadLetter?.cause ?? 'unknown'}<//>` }
      : { key: 'state', title: 'State', width: 'w-state', low: 1, render: (row) => html`<${Badge} tone=${row.state === 'ready' ? 'good' : ''}>${row.state}<//>` },
    dead && { key: 'from', title: 'Came from', low: 1, render: (row) => html`<span class="mono cut" title=${row.deadLetter?.originalDestination}>${text(row.deadLetter?.originalDestination)}</span>` },
    { key: 'body', title: 'Body', render: (row) => html`<span class="cut body-cell" title=${row.contentType}>${preview(row)}</span>` },
    { key: 'type', title: 'Type', low: 2, width: 'w-type', render: (row) => html`<span class="cut muted">${text(row.contentType ?? row.type)}</span>` },
    { key: 'size', title: 'Size', num: true, low: 1, render: (row) => bytes(row.bodyBytes) },
    { key: 'attempts', title: 'Tries', num: true, low: 2, width: 'w-tries', render: (row) => count(dead ? row.deadLetter?.deliveries : row.attempts) },
    { key: 'age', title: 'Age', num: true, low: 1, width: 'w-wide', render: (row) => html`<span title=${time(row.timestamp)}>${ago(row.timestamp)}</span>` },
  ].filter(Boolean);
  return html`<div class="toolbar list-tools">
      <${Search} value=${words} label="Find text in bodies" placeholder="Text in the body" onChange=${(value) => adjust({ text: value, after: '', page: '' })} />
      <${Search} value=${selector} label="Selector" placeholder="Selector: region = 'EU' AND priority > 4" wait=${600} onChange=${(value) => adjust({ selector: value, after: '', page: '' })} />
      <span class="gap" />
      ${dead && html`<${Button} kind="primary" onClick=${() => setAsking('redrive')} disabled=${!items.length}>Redrive ${chosen.size ? count(chosen.size) : selector ? 'found' : 'all'}<//>`}
      <${Button} onClick=${() => setAsking('move')} disabled=${!items.length}>Move ${chosen.size ? count(chosen.size) : selector ? 'found' : 'all'}<//>
      <${Button} onClick=${() => setAsking('copy')} disabled=${!items.length}>Copy<//>
      <${Button} kind="danger-quiet" onClick=${erase} disabled=${!some || !items.length}>Delete ${chosen.size ? count(chosen.size) : selector ? 'found' : ''}<//>
    </div>
    <div class="split ${open ? 'open' : ''}">
      <div class="split-list"><${Loaded} poll=${poll}>${(list) => html`<${Table} caption="Messages" columns=${columns} rows=${list.items} id=${(row) => row.sequence}
        selected=${(row) => String(row.sequence) === open} empty=${html`<${Empty} title=${selector || words ? 'No message matches' : dead ? 'No dead letters here' : 'This queue is empty'} />`} />
        ${(list.next || page > 1) && html`<div class="toolbar under"><span class="gap" /><${Pager} list=${list} page=${page} limit=${LIMIT} onMove=${(to) => adjust({ ...to, message: '' })} /></div>`}`}<//></div>
      ${open && html`<${Message} key=${open} path=${path} sequence=${open} onClose=${() => adjust({ message: '' })} onChange=${() => {
    adjust({ message: '' });
    onChange();
  }} />`}
    </div>
    ${(asking === 'move' || asking === 'copy') && html`<${MoveTo} verb=${asking} path=${path} chosen=${chosen} selector=${selector} onClose=${close} onDone=${done} />`}
    ${asking === 'redrive' && html`<${Redrive} queue=${queue} chosen=${chosen} selector=${selector} onClose=${close} onDone=${done} />`}`;
}
