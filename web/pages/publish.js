// Sends one message, or the same a few times, and shows the call to make it from a terminal.
import { Button, Field, Head, copy, html, tell, useState } from '../ui.js';
import { adjust, destinationHref, vhost } from '../router.js';
import { base64, bytes, count, plural } from '../format.js';
import { DestinationInput } from './destination-input.js';
import { post } from '../api.js';

const TYPES = ['text/plain', 'application/json', 'application/xml', 'application/octet-stream'];
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// JSON types where they are meant: numbers and truths go as such, everything else as text.
const typed = (text) => (/^-?(0|[1-9]\d{0,14})(\.\d+)?$/.test(text) ? Number(text) : text === 'true' ? true : text === 'false' ? false : text);

function envelope(form, body, properties) {
  const message = { contentType: form.contentType, persistent: form.persistent === 'on' };
  for (const key of ['correlationId', 'replyTo', 'type', 'groupId']) if (form[key]) message[key] = form[key];
  for (const key of ['priority', 'ttl']) if (form[key] !== '') message[key] = Number(form[key]);
  const set = properties.filter(([key]) => key);
  if (set.length) message.properties = Object.fromEntries(set.map(([key, value]) => [key, typed(value)]));
  return { ...message, ...body };
}

export function Publish({ query }) {
  const [to, setTo] = useState(query.to || 'queue://');
  const [file, setFile] = useState();
  const [properties, setProperties] = useState([]);
  const [type, setType] = useState('text/plain');
  const [error, setError] = useState();
  const [sent, setSent] = useState([]);
  const [busy, setBusy] = useState(false);
  const draft = (form) => envelope(form, file ? { bodyBase64: file.base64 } : { body: form.body.replaceAll('\r\n', '\n') }, properties);
  const path = () => {
    const [, kind, name] = /^(queue|topic):\/\/(.+)$/.exec(to) ?? [];
    return kind && `/v1/${kind}s/${encodeURIComponent(name)}/messages`;
  };
  const submit = async (event) => {
    event.preventDefault();
    setError(undefined);
    const form = Object.fromEntries(new FormData(event.currentTarget));
    const times = Math.max(1, Math.min(1000, Number(form.times) || 1));
    if (form.contentType === 'application/json' && !file) {
      try {
        JSON.parse(form.body);
      } catch (problem) {
        setError({ message: `the body is no JSON: ${problem.message}` });
        return;
      }
    }
    setBusy(true);
    try {
      const message = draft(form);
      const result = await post(path(), times === 1 ? message : Array.from({ length: times }, () => message));
      const all = result.messages ?? [result];
      const failed = all.find((one) => one.error);
      if (failed) setError({ message: failed.error.detail, code: failed.error.code });
      const good = all.filter((one) => !one.error);
      if (good.length) {
        setSent((old) => [{ at: Date.now(), to, n: good.length, ...good.at(-1) }, ...old].slice(0, 10));
        tell(`${plural(good.length, 'message')} sent to ${to}`);
      }
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  const curl = (event) => {
    const form = Object.fromEntries(new FormData(event.currentTarget.form));
    const host = vhost() === '/' ? '' : `?vhost=${encodeURIComponent(vhost())}`;
    copy(`curl -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(draft(form)))} ${quoted(`${location.origin}${path() ?? '/v1/messages'}${host}`)}`);
  };
  const take = async (event) => {
    const [chosen] = event.currentTarget.files;
    if (!chosen) return setFile(undefined);
    return setFile({ name: chosen.name, size: chosen.size, base64: base64(new Uint8Array(await chosen.arrayBuffer())) });
  };
  const property = (at, part, value) => setProperties((old) => old.map((one, i) => (i === at ? (part ? [one[0], value] : [value, one[1]]) : one)));
  return html`<${Head} title="Publish" sub="one message, from here" />
    <form class="publish grid main-side" onSubmit=${submit}>
      <section class="card">
        <${Field} label="To" hint="queue://NAME goes to one consumer, topic://NAME to all subscribers"><${DestinationInput} value=${to} required onInput=${(value) => {
    setTo(value);
    adjust({ to: value });
  }} /><//>
        <${Field} label="Content type"><input name="contentType" class="mono" list="types" value=${type} onInput=${(event) => setType(event.currentTarget.value)} spellcheck="false" /><//>
        <datalist id="types">${TYPES.map((one) => html`<option key=${one} value=${one} />`)}</datalist>
        ${file ? html`<div class="field"><span class="field-label">Body</span><p class="file mono">${file.name}, ${bytes(file.size)} <${Button} kind="quiet" onClick=${() => setFile(undefined)}>Type one instead<//></p></div>`
    : html`<${Field} label="Body" wide error=${error && `${error.field ? `${error.field}: ` : ''}${error.message}`}><textarea name="body" class="mono" rows="10" spellcheck="false" /><//>`}
        ${file && error && html`<p class="field-error" role="alert">${error.message}</p>`}
        <div class="actions"><${Button} kind="primary" type="submit" busy=${busy}>Send<//>
          <label class="inline">times <input name="times" type="number" min="1" max="1000" defaultValue="1" class="short" /></label><span class="gap" />
          <label class="button quiet file-button">From a file<input type="file" class="unseen" onChange=${take} /></label>
          <${Button} kind="quiet" onClick=${curl}>Copy as curl<//></div>
      </section>
      <section class="card">
        <h2>Headers</h2>
        <label class="check"><input type="checkbox" name="persistent" defaultChecked /> Persistent: survives a restart</label>
        <div class="row"><${Field} label="Priority"><select name="priority">${Array.from({ length: 10 }, (_, i) => html`<option key=${i} value=${i} selected=${i === 4}>${i === 4 ? '4, as usual' : i}</option>`)}</select><//>
          <${Field} label="Time to live, ms"><input name="ttl" type="number" min="0" placeholder="for ever" /><//></div>
        <${Field} label="Correlation id"><input name="correlationId" class="mono" spellcheck="false" /><//>
        <${Field} label="Reply to"><input name="replyTo" class="mono" spellcheck="false" placeholder="queue://" /><//>
        <div class="row"><${Field} label="Type"><input name="type" class="mono" spellcheck="false" /><//><${Field} label="Group id"><input name="groupId" class="mono" spellcheck="false" /><//></div>
        <h3>Properties</h3>
        ${properties.map(([key, value], i) => html`<div key=${i} class="row property"><input aria-label=${`Name of property ${i + 1}`} class="mono" placeholder="name" value=${key} onInput=${(event) => property(i, 0, event.currentTarget.value)} />
          <input aria-label=${`Value of property ${i + 1}`} class="mono" placeholder="value" value=${value} onInput=${(event) => property(i, 1, event.currentTarget.value)} />
          <button type="button" class="close" aria-label=${`Remove property ${i + 1}`} onClick=${() => setProperties((old) => old.filter((_, at) => at !== i))}>×</button></div>`)}
        <${Button} kind="quiet" onClick=${() => setProperties((old) => [...old, ['', '']])}>Add a property<//>
      </section>
    </form>
    ${sent.length > 0 && html`<section class="card"><h2>Sent from here</h2><ul class="plain-list">${sent.map((one) => html`<li key=${one.at}><a class="mono" href=${destinationHref(one.to)}>${one.to}</a>
      ${one.n > 1 && html` <span>× ${count(one.n)}</span>`} <span class="mono muted">${one.id}</span> <span class="muted">${one.durability ? `durability: ${one.durability}` : ''}</span></li>`)}</ul></section>`}`;
}
