#!/usr/bin/env node
// @stomp/stompjs in a real Chromium, STOMP over WebSocket on /stomp, with a TCP
// client answering its requests. STOMP_HOST, STOMP_PORT and HTTP_PORT say where;
// the broker must allow pages of http://127.0.0.1:PAGE_PORT.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { broker, host, httpPort, load, port, room, run, wait } from './modules.mjs';

const { Client } = load('@stomp/stompjs');
const { TCPWrapper } = load('@stomp/tcp-wrapper');
const { chromium } = load('playwright-core');
const here = path.dirname(fileURLToPath(import.meta.url));

const files = {
  '/': ['text/html', () => '<!doctype html><title>Sabir</title><script src="/stomp.js"></script>'],
  '/stomp.js': ['text/javascript', () => readFileSync(path.join(room, 'node_modules/@stomp/stompjs/bundles/stomp.umd.js'))],
  '/checks.mjs': ['text/javascript', () => readFileSync(path.join(here, 'checks.mjs'))],
};
function serve(port) {
  const pages = createServer((request, response) => {
    const [type, read] = files[request.url] ?? [];
    response.writeHead(read ? 200 : 404, { 'content-type': type ?? 'text/plain' });
    response.end(read ? read() : 'not here');
  });
  return new Promise((resolve, reject) => {
    pages.on('error', reject);
    pages.listen(port, '127.0.0.1', () => resolve(pages));
  });
}
const pages = await serve(Number(process.env.PAGE_PORT ?? 0));
// The same page from an origin that nobody allowed.
const strangers = await serve(0);

// The other side of request and reply: same library, another transport.
const name = run('br');
const echo = `/queue/${name}.echo`;
const server = new Client({
  webSocketFactory: () => new TCPWrapper(host, port),
  reconnectDelay: 0,
});
await new Promise((resolve, reject) => {
  server.onConnect = () => {
    server.watchForReceipt('listening', resolve);
    server.subscribe(echo, (request) => {
      server.publish({
        destination: request.headers['reply-to'],
        body: `echo ${request.body}`,
        headers: { 'correlation-id': request.headers['correlation-id'] },
      });
    }, { receipt: 'listening' });
  };
  server.onStompError = (frame) => reject(new Error(frame.headers.message));
  server.onWebSocketError = () => reject(new Error(`no broker at ${host}:${port}`));
  server.activate();
});

const executable = process.env.CHROMIUM ?? spawnSync('which', ['chromium'], { encoding: 'utf8' }).stdout.trim();
const profile = mkdtempSync(path.join(tmpdir(), 'sabir-chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: executable,
  env: { ...process.env, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile },
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

const result = { passed: 0, failed: 0 };
function tell(label, complaint) {
  result[complaint ? 'failed' : 'passed'] += 1;
  console.log(complaint ? `FAIL ${label}: ${complaint}` : `ok   ${label}`);
}

// Opens a bare WebSocket from the page; says which sub-protocol was chosen, or undefined when refused.
function opens(page, url) {
  return page.evaluate((address) => new Promise((resolve) => {
    const socket = new WebSocket(address, ['v12.stomp', 'v11.stomp']);
    socket.onopen = () => {
      resolve(socket.protocol);
      socket.close();
    };
    socket.onerror = () => resolve(undefined);
  }), url);
}

try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.log(`     page: ${error.message}`));
  if (broker === 'sabir') {
    const url = `ws://${host}:${httpPort}/stomp`;
    await page.goto(`http://127.0.0.1:${strangers.address().port}/`);
    tell('browser: a page of another origin is refused', (await opens(page, url)) === undefined ? '' : 'it connected');
    await page.goto(`http://127.0.0.1:${pages.address().port}/`);
    const chosen = await opens(page, url);
    tell('browser: the best sub-protocol is chosen', chosen === 'v12.stomp' ? '' : `chosen: ${chosen}`);
  }
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.exposeFunction('print', (line) => console.log(line));
  const options = { run: name, broker, wait, echo, url: `ws://${host}:${httpPort}/stomp`, only: process.argv[2] };
  const { passed, failed } = await page.evaluate(async (given) => {
    const { runChecks } = await import('/checks.mjs');
    const { Client: BrowserClient, Versions } = window.StompJs;
    const settings = { ...given, Client: BrowserClient, Versions, label: 'stompjs browser' };
    return runChecks({ ...settings, transport: () => ({ brokerURL: given.url }) }, window.print);
  }, options);
  result.passed += passed;
  result.failed += failed;
} catch (error) {
  tell('stompjs browser', error.message);
} finally {
  await browser.close();
  await server.deactivate({ force: true });
  pages.close();
  strangers.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(`${result.passed} passed, ${result.failed} failed`);
process.exit(result.failed ? 1 : 0);
