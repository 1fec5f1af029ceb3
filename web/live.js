// What the whole console knows without asking twice: the overview, polled once for all pages.
import { Rates, Series } from './poll.js';
import { get, link, locked } from './api.js';
import { store } from './store.js';
import { vhost } from './router.js';

export const overview = store({ data: undefined, rates: {}, error: undefined });
const TOTALS = ['published', 'delivered', 'acknowledged', 'redelivered', 'expired', 'deadLettered', 'discarded', 'refused'];
export const series = new Series(['published', 'delivered', 'acknowledged', 'ready', 'unsettled', 'memoryBytes', 'connections']);

let rates = new Rates(TOTALS);
let started;
let host;
let timer;
let running = false;

async function once() {
  clearTimeout(timer);
  if (running || locked.get()) return plan();
  running = true;
  try {
    const data = await get('/v1/overview');
    const began = data.time - data.uptimeMs;
    // Another start of the broker, or another virtual host, is another story.
    if (started === undefined || Math.abs(began - started) > 5000 || host !== vhost()) rates = new Rates(TOTALS);
    started = began;
    host = vhost();
    const now = rates.of('all', data, data.time);
    series.push(data.time / 1000, { ...data, ...now });
    overview.set({ data, rates: now, error: undefined });
  } catch (error) {
    if (error.name !== 'AbortError') overview.set((old) => ({ ...old, error }));
  }
  running = false;
  return plan();
}

function plan() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(once, 2000);
}

export function start() {
  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : once()));
  locked.watch((is) => !is && once());
  return once();
}
export { link };
