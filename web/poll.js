// Asking again and again, but only while somebody looks; and rates out of two answers.
import { useEffect, useRef, useState } from './vendor/preact-hooks.js';

const EVERY_MS = 2000;

/**
 * Calls `load(signal)` now, whenever `key` changes, and every two seconds while the tab is
 * seen and `paused` is not set. The last answer stays when a later call fails, so that a page
 * does not blink; `fresh` tells whether it belongs to this key.
 */
export function usePoll(load, key, { paused = false, every = EVERY_MS } = {}) {
  const [state, set] = useState({ data: undefined, error: undefined, key: undefined });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  const still = useRef(paused);
  latest.current = load;
  still.current = paused;
  useEffect(() => {
    const abort = new AbortController();
    let timer;
    let running = false;
    async function once() {
      clearTimeout(timer);
      if (running) return;
      running = true;
      try {
        const data = await latest.current(abort.signal);
        if (!abort.signal.aborted) set({ data, error: undefined, key });
      } catch (error) {
        if (!abort.signal.aborted) set((old) => ({ data: old.key === key ? old.data : undefined, error, key }));
      }
      running = false;
      plan();
    }
    function plan() {
      clearTimeout(timer);
      if (abort.signal.aborted || document.hidden) return;
      timer = setTimeout(() => (still.current ? plan() : once()), every);
    }
    const seen = () => (document.hidden ? clearTimeout(timer) : once());
    document.addEventListener('visibilitychange', seen);
    once();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', seen);
    };
  }, [key, every, turn]);
  const fresh = state.key === key;
  return { ...state, fresh, loading: !fresh || (state.data === undefined && !state.error), refresh: () => setTurn((n) => n + 1) };
}

/** Rates per second of named totals, thing by thing, from one answer to the next. */
export class Rates {
  constructor(fields, most = 5000) {
    Object.assign(this, { fields, most, last: new Map() });
  }

  // `at` is milliseconds on any clock that only goes forward.
  of(id, totals, at = performance.now()) {
    const old = this.last.get(id);
    // The same answer drawn again, or one that came too soon to say anything.
    if (old && (old.totals === totals || at - old.at < 500)) return old.rates;
    const rates = {};
    for (const field of this.fields) {
      const grown = old ? (totals[field] ?? 0) - (old.totals[field] ?? 0) : undefined;
      // A total that fell belongs to a broker that was restarted.
      rates[field] = grown === undefined || grown < 0 ? undefined : (grown * 1000) / (at - old.at);
    }
    this.last.delete(id);
    this.last.set(id, { at, totals, rates });
    if (this.last.size > this.most) this.last.delete(this.last.keys().next().value);
    return rates;
  }
}

/** The last quarter of an hour of some numbers, for charts. */
export class Series {
  constructor(fields, most = 450) {
    Object.assign(this, { fields, most, times: [], values: fields.map(() => []) });
  }

  push(at, point) {
    const last = this.times.at(-1);
    if (last !== undefined && at <= last) return;
    this.times.push(at);
    this.fields.forEach((field, i) => this.values[i].push(point[field] ?? null));
    if (this.times.length > this.most) {
      this.times.shift();
      for (const values of this.values) values.shift();
    }
  }

  data() {
    return [this.times, ...this.values];
  }
}
