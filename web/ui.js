// The pieces that pages are made of. Plain functions of their properties; no page knows how
// a table scrolls or a question is asked.
import { h, render, Fragment } from './vendor/preact.js';
import { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.js';
import htm from './vendor/htm.js';
import { store, useStore } from './store.js';

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState };

let opened = false;
// A page's head: what it shows, how many, and what can be done. Takes the focus when one page
// follows another, so that a screen reader and the keyboard start here.
export function Head({ title, sub, mono, badges, children }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${title} · Sabir`;
    if (opened) heading.current?.focus({ preventScroll: true });
    opened = true;
  }, [title]);
  return html`<header class="head">
    <div class="head-title"><h1 tabindex="-1" ref=${heading} class=${mono ? 'mono' : ''}>${title}</h1>${badges}
      ${sub !== undefined && html`<span class="sub">${sub}</span>`}</div>
    <div class="head-actions">${children}</div>
  </header>`;
}

export function Button({ kind = '', onClick, disabled, title, children, type = 'button', busy, ...rest }) {
  return html`<button type=${type} class="button ${kind}" onClick=${onClick} disabled=${disabled || busy}
    title=${title} aria-busy=${busy ? 'true' : undefined} ...${rest}>${children}</button>`;
}

export const Badge = ({ tone = '', children, title }) => html`<span class="badge ${tone}" title=${title}>${children}</span>`;

// A label with its control, and what is to be said about it.
export function Field({ label, hint, error, children, wide }) {
  return html`<label class="field ${wide ? 'wide' : ''}"><span class="field-label">${label}</span>${children}
    ${hint && html`<span class="hint">${hint}</span>`}${error && html`<span class="field-error" role="alert">${error}</span>`}</label>`;
}

export function Select({ value, onChange, options, ...rest }) {
  return html`<select value=${value} onChange=${(event) => onChange(event.currentTarget.value)} ...${rest}>
    ${options.map(([key, label]) => html`<option key=${key} value=${key} selected=${key === value}>${label}</option>`)}</select>`;
}

// A text field that tells what was typed once the typing pauses.
export function Search({ value, onChange, label, placeholder, wait = 180 }) {
  const [typed, setTyped] = useState(value);
  const timer = useRef();
  const told = useRef(value);
  useEffect(() => {
    if (value !== told.current) setTyped(value);
    told.current = value;
  }, [value]);
  const tell = (next) => {
    clearTimeout(timer.current);
    told.current = next;
    onChange(next);
  };
  return html`<input type="search" class="search" aria-label=${label} placeholder=${placeholder} value=${typed} data-search
    spellcheck="false" autocomplete="off" autocapitalize="off"
    onInput=${(event) => {
    const next = event.currentTarget.value;
    setTyped(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => tell(next), wait);
  }} onKeyDown=${(event) => event.key === 'Enter' && tell(event.currentTarget.value)} />`;
}

// Numbers with names, in one line that wraps.
export function Stats({ items }) {
  return html`<dl class="stats">${items.filter(Boolean).map(([name, value, note, tone]) => html`
    <div key=${name} class=${tone ?? ''}><dt>${name}</dt><dd>${value}</dd>${note !== undefined && html`<dd class="note">${note}</dd>`}</div>`)}</dl>`;
}

export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children && html`<div>${children}</div>`}</div>`;

export function Trouble({ error, retry }) {
  if (!error) return null;
  const unreachable = error.code === 'unreachable';
  return html`<div class="trouble" role="alert"><p><strong>${unreachable ? 'No answer' : 'That did not work'}</strong> ${error.message}.
    ${error.code && !unreachable && html` <code>${error.code}</code>`}</p>
    ${retry && html`<${Button} onClick=${retry}>Try again<//>`}</div>`;
}

// What `usePoll` gave, as a page: waiting, failed, or there.
export function Loaded({ poll, children, skeleton = 6 }) {
  if (poll.fresh && poll.data !== undefined) return children(poll.data);
  if (poll.fresh && poll.error) return html`<${Trouble} error=${poll.error} retry=${poll.refresh} />`;
  return html`<div class="skeleton" aria-busy="true" aria-label="Loading">${Array.from({ length: skeleton }, (_, i) => html`<i key=${i} />`)}</div>`;
}

// A table with fixed columns, so that numbers that grow move nothing. Columns are
// { key, title, num, width, low, render }: `low` ones leave first when it gets narrow. Up and
// down move between rows that have a link or a button.
export function Table({ caption, columns, rows, id, selected, empty, dense }) {
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.closest('input,select,textarea')) return;
    const targets = [...event.currentTarget.querySelectorAll('tbody tr')].map((row) => row.querySelector('[data-row]')).filter(Boolean);
    const next = targets[targets.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };
  if (rows.length === 0) return empty ?? html`<${Empty} title="Nothing here" />`;
  const kind = (column) => `${column.num ? 'num ' : ''}${column.low ? `low${column.low}` : ''}`;
  return html`<div class="table-scroll" role="region" aria-label=${caption}><table class=${dense ? 'dense' : ''} onKeyDown=${move}>
    <caption class="unseen">${caption}</caption>
    <colgroup>${columns.map((column) => html`<col key=${column.key} class=${`${kind(column)} ${column.width ?? ''}`} />`)}</colgroup>
    <thead><tr>${columns.map((column) => html`<th key=${column.key} scope="col" class=${kind(column)}
      aria-sort=${column.sorted}>${column.title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${id(row)} class=${selected?.(row) ? 'chosen' : ''}>
      ${columns.map((column) => html`<td key=${column.key} class=${kind(column)}>${column.render(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

// Forward and back through a list that only knows cursors. `page` and `after` are in the
// address; the cursors of earlier pages are remembered while the page lives.
export function Pager({ list, page, limit, onMove }) {
  const trail = useRef([]);
  const first = (page - 1) * limit + 1;
  const last = first + list.items.length - 1;
  return html`<nav class="pager" aria-label="Pages">
    <span class="pager-where" aria-live="polite">${list.items.length ? html`${first.toLocaleString('en')}–${last.toLocaleString('en')} of ${(list.total ?? last).toLocaleString('en')}` : 'none'}</span>
    <${Button} disabled=${page === 1} onClick=${() => onMove({ page: '', after: '' })}>First<//>
    <${Button} disabled=${page === 1} onClick=${() => {
    const to = page - 1;
    const after = trail.current[to];
    // Without the cursor of the page before, as after a reload, the first page will do.
    onMove(to > 1 && after ? { page: to, after } : { page: '', after: '' });
  }}>Previous<//>
    <${Button} disabled=${!list.next} onClick=${() => {
    trail.current[page + 1] = list.next;
    onMove({ page: page + 1, after: list.next });
  }}>Next<//>
  </nav>`;
}

// A window in front of the page. The browser keeps the focus inside and closes it on Escape.
export function Dialog({ title, onClose, children, wide }) {
  const box = useRef();
  const id = useId();
  useLayoutEffect(() => {
    const dialog = box.current;
    if (!dialog.open) dialog.showModal();
    return () => dialog.close();
  }, []);
  return html`<dialog ref=${box} class=${wide ? 'wide' : ''} aria-labelledby=${id} onCancel=${(event) => { event.preventDefault(); onClose(); }}
    onClick=${(event) => event.target === box.current && onClose()}>
    <div class="dialog"><header><h2 id=${id}>${title}</h2><button type="button" class="close" aria-label="Close" onClick=${onClose}>×</button></header>
    ${children}</div></dialog>`;
}

const question = store(undefined);
// Asks whether to go ahead; a promise of the answer.
export const confirmed = (asked) => new Promise((resolve) => question.set({ ...asked, resolve }));

export function Questions() {
  const asked = useStore(question);
  if (!asked) return null;
  const answer = (value) => {
    question.set(undefined);
    asked.resolve(value);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => answer(false)}>
    <p>${asked.text}</p>
    <footer><${Button} autofocus onClick=${() => answer(false)}>Cancel<//>
      <${Button} kind=${asked.danger ? 'danger' : 'primary'} onClick=${() => answer(true)}>${asked.action}<//></footer>
  <//>`;
}

const notes = store([]);
let noteId = 0;
// Says in a corner, and to screen readers, what has happened.
export function tell(text, tone = 'good') {
  const id = ++noteId;
  notes.set((old) => [...old.slice(-3), { id, text, tone }]);
  setTimeout(() => notes.set((old) => old.filter((note) => note.id !== id)), tone === 'bad' ? 12_000 : 5000);
}

export function Notes() {
  const shown = useStore(notes);
  return html`<div class="notes" role="status" aria-live="polite">${shown.map((note) => html`
    <p key=${note.id} class=${note.tone}>${note.text}<button type="button" class="close" aria-label="Dismiss"
      onClick=${() => notes.set((old) => old.filter((other) => other.id !== note.id))}>×</button></p>`)}</div>`;
}

// Runs what a button asked for; tells how it went. Returns whether it went well.
export async function attempt(work, done) {
  try {
    const result = await work();
    const text = typeof done === 'function' ? done(result) : done;
    if (text) tell(text);
    return true;
  } catch (error) {
    if (error.name !== 'AbortError') tell(`${error.message}${error.code ? ` (${error.code})` : ''}`, 'bad');
    return false;
  }
}

export function Tabs({ value, onChange, tabs, label }) {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = (tabs.findIndex(([key]) => key === value) + step + tabs.length) % tabs.length;
    onChange(tabs[at][0]);
    event.currentTarget.children[at].focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} onKeyDown=${move}>${tabs.map(([key, title, note]) => html`
    <button key=${key} type="button" role="tab" aria-selected=${key === value} tabindex=${key === value ? 0 : -1}
      onClick=${() => onChange(key)}>${title}${note !== undefined && html` <span class="tab-note">${note}</span>`}</button>`)}</div>`;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard: the old way still works.
    const area = document.createElement('textarea');
    area.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  tell('Copied');
}
