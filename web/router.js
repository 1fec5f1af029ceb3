// Pages have addresses: `#/queues/orders?tab=consumers`. Everything that a person can
// choose on a page and would want to send to somebody else is in there.
import { store, useStore } from './store.js';

function parse(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

const route = store(parse(location.hash));
window.addEventListener('hashchange', () => route.set(parse(location.hash)));

export const useRoute = () => useStore(route);
export const here = () => route.get();

// The virtual host goes along from page to page; the default one is not spelt out.
export const vhost = () => route.get().query.vhost || '/';

export function href(parts, query = {}) {
  const all = { ...(vhost() === '/' ? {} : { vhost: vhost() }), ...query };
  const text = new URLSearchParams(
    Object.entries(all).filter(([, value]) => value !== undefined && value !== null && value !== ''),
  ).toString();
  return `#/${parts.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}

export function go(parts, query, { replace = false } = {}) {
  const target = href(parts, query);
  if (target === location.hash) return;
  if (replace) {
    history.replaceState(null, '', target);
    route.set(parse(target));
  } else {
    location.hash = target;
  }
}

// Changes some of the query of this page and leaves no step in the history.
export function adjust(changes) {
  const { parts, query } = route.get();
  go(parts, { ...query, ...changes }, { replace: true });
}

// Where a destination such as `queue://orders` is shown.
export function destinationHref(destination) {
  const found = /^(queue|topic):\/\/(.*)$/.exec(destination ?? '');
  return found ? href([`${found[1]}s`, found[2]]) : undefined;
}
