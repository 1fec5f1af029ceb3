// Light, dark, or as the machine has it.
import { kept, store } from './store.js';

export const theme = kept('sabir-theme', 'auto');
const machine = matchMedia('(prefers-color-scheme: dark)');
export const dark = store(false);

function apply() {
  const is = theme.get() === 'dark' || (theme.get() === 'auto' && machine.matches);
  document.documentElement.dataset.theme = is ? 'dark' : 'light';
  dark.set(is);
}
theme.watch(apply);
machine.addEventListener('change', apply);
apply();
