// The console's frame: navigation, what is known of the broker, and the page in the middle.
import { html, render, useEffect, useRef, useState, Button, Dialog, Empty, Notes, Questions, Select, attempt } from './ui.js';
import { askSession, get, link, locked, logout, session } from './api.js';
import { go, here, href, useRoute, vhost } from './router.js';
import { store, useStore } from './store.js';
import { overview, start } from './live.js';
import { duration } from './format.js';
import { theme } from './theme.js';
import { Login } from './pages/login.js';
import { Overview } from './pages/overview.js';
import { Queues } from './pages/queues.js';
import { Queue } from './pages/queue.js';
import { Topics, Topic } from './pages/topics.js';
import { Subscriptions } from './pages/subscriptions.js';
import { DeadLetters } from './pages/dead-letters.js';
import { Connections, Connection } from './pages/connections.js';
import { Routing } from './pages/routing.js';
import { Rules } from './pages/rules.js';
import { Webhooks } from './pages/webhooks.js';
import { Publish } from './pages/publish.js';
import { Tail } from './pages/tail.js';
import { TryIt } from './pages/try-it.js';

// path, title, page for a list, page for one thing, key after `g`
const PAGES = [
  ['Watch', [
    ['', 'Overview', Overview, undefined, 'o'],
    ['routing', 'Routing', Routing, undefined, 'r'],
    ['connections', 'Connections', Connections, Connection, 'c'],
  ]],
  ['Messages', [
    ['queues', 'Queues', Queues, Queue, 'q'],
    ['topics', 'Topics', Topics, Topic, 't'],
    ['subscriptions', 'Subscriptions', Subscriptions, undefined, 's'],
    ['dead-letters', 'Dead letters', DeadLetters, DeadLetters, 'd'],
  ]],
  ['Do', [
    ['publish', 'Publish', Publish, undefined, 'p'],
    ['tail', 'Live tail', Tail, undefined, 'l'],
    ['try', 'Try it', TryIt, undefined, 'y'],
  ]],
  ['Set up', [
    ['rules', 'Rules & policies', Rules, undefined, 'u'],
    ['webhooks', 'Webhooks', Webhooks, undefined, 'w'],
  ]],
];
const ALL = PAGES.flatMap(([, pages]) => pages);

// An older server, or one built without them, has no webhooks: then the page is not offered.
const hooks = store(true);

function Page({ route }) {
  const [name = '', ...rest] = route.parts;
  const found = ALL.find(([path]) => path === name);
  if (!found || rest.length > 2) {
    return html`<${Empty} title="There is no such page"><p><a href=${href([])}>Back to the overview</a></p><//>`;
  }
  const [, , List, One] = found;
  if (rest.length && One) return html`<${One} key=${`${vhost()} ${rest.join('/')}`} name=${rest[0]} query=${route.query} />`;
  return html`<${List} key=${`${name} ${vhost()}`} query=${route.query} />`;
}

function Status() {
  const up = useStore(link);
  const { data } = useStore(overview);
  const tone = up === 'down' ? 'bad' : up ? 'good' : '';
  const text = up === 'down' ? 'No answer from the broker' : data ? `Up ${duration(data.uptimeMs)}` : up ? 'Connected' : 'Connecting';
  return html`<span class="status ${tone}"><i class="dot" aria-hidden="true" /><span class="status-text">${text}</span></span>`;
}

function Hosts() {
  const route = useRoute();
  const [hosts, set] = useState([]);
  useEffect(() => {
    get('/v1/vhosts').then((list) => set(list.items.map(({ name }) => name)), () => set([]));
  }, []);
  if (hosts.length < 2 && vhost() === '/') return null;
  const all = hosts.includes(vhost()) ? hosts : [vhost(), ...hosts];
  return html`<label class="vhost"><span>Virtual host</span><${Select} value=${vhost()} options=${all.map((name) => [name, name])}
    onChange=${(name) => go(route.parts.slice(0, 1), { vhost: name === '/' ? '' : name })} /></label>`;
}

function Me() {
  const who = useStore(session);
  if (!who) return null;
  if (!who.user) return html`<${Button} kind="quiet" onClick=${() => locked.set(true)}>Log in<//>`;
  return html`<span class="me"><span title="Logged in as">${who.user}</span><${Button} kind="quiet" onClick=${() => attempt(logout)}>Log out<//></span>`;
}

const THEMES = { auto: ['light', '◐', 'as the machine'], light: ['dark', '☀', 'light'], dark: ['auto', '☾', 'dark'] };
function Theme() {
  const now = useStore(theme);
  const [next, sign, says] = THEMES[now] ?? THEMES.auto;
  return html`<button type="button" class="button quiet icon" onClick=${() => theme.set(next)}
    aria-label=${`Colours: ${says}. Change to ${THEMES[next][2]}`} title=${`Colours: ${says}`}>${sign}</button>`;
}

function Keys({ onClose }) {
  const keys = [['/', 'Search this page'], ['↑ ↓', 'Next and previous row'], ['Enter', 'Open'], ['Esc', 'Close what is open'], ['?', 'This list'],
    ...ALL.map(([, title, , , key]) => [`g ${key}`, title])];
  return html`<${Dialog} title="Keys" onClose=${onClose}><dl class="keys">${keys.map(([key, what]) => html`
    <div key=${key}><dt>${key.split(' ').map((one) => html`<kbd key=${one}>${one}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl><//>`;
}

// Keys that work wherever nobody is typing.
function useKeys(show) {
  useEffect(() => {
    let leader = 0;
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input,textarea,select,dialog')) return;
      if (Date.now() - leader < 1500) {
        leader = 0;
        const page = ALL.find(([, , , , key]) => key === event.key);
        if (page) {
          event.preventDefault();
          go(page[0] ? [page[0]] : []);
        }
      } else if (event.key === 'g') leader = Date.now();
      else if (event.key === '?') show();
      else if (event.key === '/') {
        const field = document.querySelector('main [data-search]');
        if (field) {
          event.preventDefault();
          field.focus();
          field.select();
        }
      }
    };
    document.addEventListener('keydown', press);
    return () => document.removeEventListener('keydown', press);
  }, []);
}

function Frame() {
  const route = useRoute();
  const shut = useStore(locked);
  const who = useStore(session);
  const withHooks = useStore(hooks);
  const up = useStore(link);
  const [open, setOpen] = useState(false);
  const [keys, setKeys] = useState(false);
  const menu = useRef();
  useKeys(() => setKeys(true));
  useEffect(() => setOpen(false), [route]);
  const current = route.parts[0] ?? '';
  const lost = up === 'down';
  useEffect(() => {
    if (!who || shut) return;
    get('/v1/webhooks', { query: { limit: 1 } }).then(() => hooks.set(true), (error) => hooks.set(![404, 501].includes(error.status)));
  }, [who, shut]);
  if (shut) return html`<${Login} /><${Notes} />`;
  return html`<div class="frame ${open ? 'menu-open' : ''}">
    <a class="skip" href="#content" onClick=${(event) => {
    event.preventDefault();
    document.querySelector('main h1')?.focus();
  }}>Skip to the page</a>
    <header class="top">
      <button type="button" ref=${menu} class="button quiet icon menu" aria-expanded=${open} aria-controls="nav" aria-label="Menu" onClick=${() => setOpen(!open)}>☰</button>
      <a class="brand" href=${href([])}><img src="/console/icon.svg" alt="" width="22" height="22" /><span>Sabir</span></a>
      <${Hosts} /><span class="gap" /><${Status} />
      <button type="button" class="button quiet icon wide-only" aria-label="Keys" title="Keys (?)" onClick=${() => setKeys(true)}>?</button>
      <${Theme} /><${Me} />
    </header>
    <nav id="nav" class="side" aria-label="Pages" onKeyDown=${(event) => event.key === 'Escape' && (setOpen(false), menu.current?.focus())}>
      ${PAGES.map(([group, pages]) => html`<div key=${group} class="nav-group"><p>${group}</p><ul>
        ${pages.filter(([path]) => path !== 'webhooks' || withHooks).map(([path, title]) => html`<li key=${path}>
          <a href=${href(path ? [path] : [])} aria-current=${path === current ? 'page' : undefined}>${title}</a></li>`)}</ul></div>`)}
      <div class="nav-group"><p>More</p><ul><li><a href="/docs">API</a></li></ul></div>
    </nav>
    <div class="scrim" onClick=${() => setOpen(false)} />
    <main id="content">
      <div class="lost-place" role="status" aria-live="assertive">${lost && html`<p class="lost">The broker does not answer. Trying again every two seconds; what you see may be old.</p>`}</div>
      ${who?.may?.manage === false && html`<p class="may-not">${who.user ? html`${who.user} may not manage this broker` : 'Without a login you may not manage this broker'}: most pages stay empty, publishing and tailing may work.</p>`}
      <${Page} route=${route} />
    </main>
    <${Notes} /><${Questions} />${keys && html`<${Keys} onClose=${() => setKeys(false)} />`}
  </div>`;
}

// Waits for the first answer, so that the login page comes before anything else.
function Root() {
  const [asked, set] = useState(false);
  const [error, setError] = useState();
  useEffect(() => {
    let over = false;
    const ask = () => askSession().then(() => set(true), (problem) => {
      setError(problem);
      if (!over) setTimeout(ask, 2000);
    });
    ask().then(start);
    return () => { over = true; };
  }, []);
  if (asked) return html`<${Frame} />`;
  return html`<main class="opening"><p role="status">${error ? html`No answer from the broker. Trying again.` : 'Opening …'}</p></main>`;
}

if (!location.hash) history.replaceState(null, '', '#/');
document.getElementById('app').replaceChildren();
render(html`<${Root} />`, document.getElementById('app'));
// For a person at the developer tools.
window.sabir = { here, go };
