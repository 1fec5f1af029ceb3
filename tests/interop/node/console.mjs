#!/usr/bin/env node
// The console in a real Chromium, used as a person would. Against the mock, or a broker: see
// console-target.mjs. Screenshots go to target/interop/screenshots.
//   node console.mjs [WORD]   only checks with this word in their name
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { begin, chromiumPath } from './console-target.mjs';
import { checks } from './console-checks.mjs';
import { load, room, wait } from './modules.mjs';

const { chromium } = load('playwright-core');
const shots = path.resolve(room, '../screenshots');
mkdirSync(shots, { recursive: true });

const target = await begin();
const profile = mkdtempSync(path.join(tmpdir(), 'sabir-console-'));
const browser = await chromium.launch({
  executablePath: chromiumPath(),
  env: { ...process.env, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile },
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

// Calls the API beside the browser, to prepare and to verify.
async function api(method, address, body) {
  const response = await fetch(`${target.url}${address}`, { method, headers: { 'content-type': 'application/json', 'x-requested-with': 'sabir-console' }, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${address}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

// A browser of its own for each check. What must never happen is noticed whatever it does:
// a script's error, a breach of the policy, a call of another host or without our header.
async function visit(name, options, url) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, colorScheme: 'light', ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: url });
  context.setDefaultTimeout(wait);
  const page = await context.newPage();
  const faults = [];
  const { host } = new URL(url);
  const see = (address) => {
    const asked = new URL(address);
    if (!['data:', 'blob:'].includes(asked.protocol) && asked.host !== host) faults.push(`it called ${address}`);
  };
  page.on('pageerror', (error) => faults.push(error.stack));
  page.on('console', (message) => {
    const expected = page.forgives?.some((pattern) => pattern.test(message.text()));
    if (['error', 'warning'].includes(message.type()) && !expected) faults.push(`console: ${message.text()} ${message.location().url}`);
  });
  page.on('websocket', (socket) => see(socket.url()));
  context.on('request', (request) => {
    see(request.url());
    if (request.url().includes('/v1/') && request.headers()['x-requested-with'] !== 'sabir-console') faults.push(`without its header: ${request.url()}`);
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  return {
    page,
    faults,
    url,
    open: async (hash) => {
      await page.goto(`${url}/#/${hash}`);
      await page.locator('main h1').first().waitFor();
    },
    shot: (suffix = '') => page.screenshot({ path: path.join(shots, `${name}${suffix}.png`) }),
    close: () => context.close(),
  };
}

const result = { passed: 0, failed: 0 };
for (const { name, run, options } of checks) {
  if (process.argv[2] && !name.includes(process.argv[2])) continue;
  const slug = name.replace(/[^a-z0-9]+/gi, '-').toLowerCase();
  const opened = [];
  let complaint;
  try {
    const begun = async (more, url = target.url) => {
      const seen = await visit(slug, { ...options, ...more }, url);
      opened.push(seen);
      return seen;
    };
    const skipped = await run({ target, api, begun, ...(await begun()) });
    if (skipped) {
      console.log(`skip ${name}: ${skipped}`);
      continue;
    }
  } catch (error) {
    complaint = error.stack;
    await opened.at(-1)?.shot('-failed').catch(() => {});
  }
  complaint ??= opened.flatMap((one) => one.faults)[0];
  result[complaint ? 'failed' : 'passed'] += 1;
  console.log(complaint ? `FAIL console: ${name}: ${complaint}` : `ok   console: ${name}`);
  for (const one of opened) await one.close();
}
await browser.close();
await target.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${result.passed} passed, ${result.failed} failed`);
process.exit(result.failed ? 1 : 0);
