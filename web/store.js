// The smallest store that does: a value, whoever wants to know of changes, and a hook.
import { useEffect, useState } from './vendor/preact-hooks.js';

export function store(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      const now = typeof next === 'function' ? next(value) : next;
      if (Object.is(now, value)) return;
      value = now;
      for (const listener of [...listeners]) listener(value);
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useStore(of) {
  const [value, set] = useState(of.get());
  useEffect(() => {
    set(of.get());
    return of.watch(set);
  }, [of]);
  return value;
}

// A value that survives a reload, for what is a matter of taste and no secret.
export function kept(key, fallback) {
  let first = fallback;
  try {
    first = JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    // Storage is off or holds something else: the fallback will do.
  }
  const made = store(first);
  made.watch((value) => {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Not kept, then.
    }
  });
  return made;
}
