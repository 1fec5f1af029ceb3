// What the console's checks are written with.
import { run as unique, wait } from './modules.mjs';

export { unique };
export const checks = [];
export const check = (name, run, options) => checks.push({ name, run, options });

class Failed extends Error {}
export function same(got, wanted, what) {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) throw new Failed(`${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
}
export function holds(truth, what) {
  if (!truth) throw new Failed(what);
}
// Waits until `ask` gives something true.
export async function until(ask, what) {
  const end = Date.now() + wait;
  for (;;) {
    const got = await ask();
    if (got) return got;
    if (Date.now() > end) throw new Failed(`not within ${wait} ms: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

export const at = (name) => `/v1/queues/${encodeURIComponent(name)}`;
export const ready = async (api, name) => (await api('GET', at(name))).ready;
export async function fill(api, name, messages) {
  await api('PUT', at(name));
  await api('POST', `${at(name)}/messages`, messages);
}
export const texts = (n, word = 'message') => Array.from({ length: n }, (_, i) => ({ contentType: 'text/plain', body: `${word} ${i}`, properties: { parity: i % 2 ? 'odd' : 'even' } }));
export const row = (page, text) => page.locator('tbody tr', { hasText: text });
export const confirm = (page, action) => page.locator('dialog').getByRole('button', { name: action, exact: true }).click();
export const note = (page, text) => page.locator('.notes').getByText(text).first().waitFor();
export const stat = (page, name) => page.locator('.stats > div', { has: page.locator(`dt:text-is("${name}")`) }).locator('dd').first();
