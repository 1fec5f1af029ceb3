// One message in full: where it came from, its headers, its body as text, JSON or bytes, and
// what can be done with it alone.
import { Badge, Button, Dialog, Field, Loaded, Tabs, attempt, confirmed, copy, html, tell, useEffect, useRef, useState } from '../ui.js';
import { base64, bodyBytes, bodyText, bytes, count, hexLines, text, time } from '../format.js';
import { get, post, remove } from '../api.js';
import { DestinationInput } from './destination-input.js';
import { destinationHref } from '../router.js';
import { usePoll } from '../poll.js';

const TEXT_MAX = 256 * 1024;

function pretty(seen) {
  try {
    return JSON.stringify(JSON.parse(seen), null, 2);
  } catch {
    return undefined;
  }
}

export function Body({ message }) {
  const seen = bodyText(message);
  const json = seen === undefined ? undefined : pretty(seen);
  const [view, setView] = useState(seen === undefined ? 'hex' : json !== undefined && /^\s*[[{]/.test(seen) ? 'json' : 'text');
  const tabs = [seen !== undefined && ['text', 'Text'], json !== undefined && ['json', 'JSON'], ['hex', 'Bytes']].filter(Boolean);
  const data = bodyBytes(message);
  const now = tabs.some(([key]) => key === view) ? view : tabs[0][0];
  const shown = now === 'hex' ? hexLines(data) : (now === 'json' ? json : seen).slice(0, TEXT_MAX);
  const save = () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([data], { type: 'application/octet-stream' }));
    link.download = `message-${message.sequence ?? 'body'}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  return html`<div class="body-head"><${Tabs} label="Body as" value=${now} onChange=${setView} tabs=${tabs} />
      <span class="muted">${bytes(message.bodyBytes ?? data.length)}</span><span class="gap" />
      <${Button} kind="quiet" onClick=${() => copy(now === 'hex' ? base64(data) : shown)} title=${now === 'hex' ? 'Copy as base64' : 'Copy'}>Copy<//>
      <${Button} kind="quiet" onClick=${save}>Save<//></div>
    <pre class="body" tabindex="0" aria-label="Body">${shown || html`<span class="muted">empty</span>`}</pre>`;
}

const shownApart = new Set(['body', 'bodyBase64', 'properties', 'userProperties', 'bodyBytes', 'bodyTruncated', 'deadLetter', 'sequence', 'state', 'attempts']);
const dates = new Set(['timestamp', 'expiration']);

export function Headers({ message }) {
  const rows = Object.entries(message).filter(([key, value]) => !shownApart.has(key) && value !== null && value !== undefined && value !== '');
  const properties = [...Object.entries(message.properties ?? {}), ...(message.userProperties ?? [])];
  return html`<dl class="facts">${rows.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd class="mono">${
    dates.has(key) ? time(value) : destinationHref(value) ? html`<a href=${destinationHref(value)}>${value}</a>` : text(value)}</dd></div>`)}</dl>
    ${properties.length > 0 && html`<h3>Properties</h3><dl class="facts">${properties.map(([key, value], i) => html`<div key=${i}><dt>${key}</dt><dd class="mono">${
    typeof value === 'object' && value?.value !== undefined ? html`${text(value.value)} <span class="muted">${value.$type}</span>` : text(value)}</dd></div>`)}</dl>`}`;
}

function Resend({ path, sequence, message, onClose, onDone }) {
  const [to, setTo] = useState(message.deadLetter?.originalDestination ?? message.destination ?? 'queue://');
  const [error, setError] = useState();
  const original = bodyText(message);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const changed = original === undefined ? {} : { body: form.get('body').replaceAll('\r\n', '\n') };
    try {
      await post(`${path}/messages/${sequence}/resend`, { to, ...(changed.body === original ? {} : changed) });
      onDone(`Sent to ${to}`);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title="Edit and resend" wide onClose=${onClose}><form onSubmit=${submit}>
    <p class="hint">The edited copy is sent and the original removed, both or neither.</p>
    <${Field} label="To" error=${error?.message}><${DestinationInput} value=${to} onInput=${setTo} required /><//>
    ${original === undefined ? html`<p class="hint">The body is no text and is sent as it is.</p>`
    : html`<${Field} label="Body" wide><textarea name="body" class="mono" rows="12" spellcheck="false" autofocus>${original}</textarea><//>`}
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit">Send and remove<//></footer></form><//>`;
}

export function Message({ path, sequence, onClose, onChange }) {
  // A message does not change but for its state: it is asked for now and then, so that a reader sees when it is gone.
  const poll = usePoll((signal) => get(`${path}/messages/${sequence}`, { signal }), `${path} ${sequence}`, { every: 10_000 });
  const [editing, setEditing] = useState(false);
  const panel = useRef();
  useEffect(() => {
    const before = document.activeElement;
    panel.current?.focus();
    return () => before?.isConnected && before.focus();
  }, []);
  const erase = async () => {
    if (!await confirmed({ title: 'Delete this message?', text: `Message ${sequence} will be gone for good.`, action: 'Delete', danger: true })) return;
    if (await attempt(() => remove(`${path}/messages/${sequence}`), `Message ${sequence} deleted`)) onChange();
  };
  return html`<aside class="detail card" tabindex="-1" ref=${panel} aria-label=${`Message ${sequence}`} onKeyDown=${(event) => event.key === 'Escape' && !event.target.closest('dialog') && onClose()}>
    <header><h2>Message <span class="mono">${sequence}</span></h2><span class="gap" /><button type="button" class="close" aria-label="Close the message" onClick=${onClose}>×</button></header>
    ${poll.fresh && poll.error?.status === 404 ? html`<p class="hint">It is no longer in the queue: a consumer took it, or it expired.</p>` : html`<${Loaded} poll=${poll}>${(message) => html`
      <div class="toolbar">${message.state && html`<${Badge} tone=${message.state === 'ready' ? 'good' : ''}>${message.state}<//>`}
        ${message.attempts > 0 && html`<${Badge}>${count(message.attempts)} tries<//>`}${message.redelivered && html`<${Badge} tone="warn">redelivered<//>`}<span class="gap" />
        <${Button} disabled=${message.state === 'unsettled'} onClick=${() => setEditing(true)}>Edit and resend<//>
        <${Button} kind="danger-quiet" disabled=${message.state === 'unsettled'} onClick=${erase}>Delete<//></div>
      ${message.deadLetter && html`<div class="why"><p><strong>${message.deadLetter.cause}</strong> after ${count(message.deadLetter.deliveries)} ${message.deadLetter.deliveries === 1 ? 'delivery' : 'deliveries'}</p>
        <p>from <a class="mono" href=${destinationHref(message.deadLetter.originalDestination)}>${text(message.deadLetter.originalDestination)}</a>, ${time(message.deadLetter.time)}</p></div>`}
      <${Body} message=${message} /><${Headers} message=${message} />
      ${editing && html`<${Resend} path=${path} sequence=${sequence} message=${message} onClose=${() => setEditing(false)} onDone=${(said) => {
    setEditing(false);
    tell(said);
    onChange();
  }} />`}`}<//>`}
  </aside>`;
}
