// What the console's tests run against: a broker that is there (SABIR_URL), one of our own
// that can be killed and started again (SABIR_BIN), else the mock.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));

const freePort = () => new Promise((resolve, reject) => {
  const probe = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});

async function answers(url, child) {
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`what was to be tested ended with status ${child.exitCode}`);
    try {
      await fetch(`${url}/`);
      return;
    } catch {
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  }
}

async function process_(command, given, environment, port) {
  const url = `http://127.0.0.1:${port}`;
  let child;
  const target = {
    url,
    async start() {
      child = spawn(command, given, { env: { ...process.env, ...environment }, stdio: ['ignore', 'ignore', process.env.CONSOLE_LOG ? 'inherit' : 'ignore'] });
      await answers(url, child);
    },
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => { child.once('exit', resolve); });
      child.kill('SIGKILL');
      await gone;
    },
  };
  await target.start();
  return target;
}

export async function mock({ queues = 100_000, user = '' } = {}) {
  const port = await freePort();
  const target = await process_(process.execPath, [path.join(here, 'console-mock.mjs'), String(port), String(queues)], { MOCK_USER: user }, port);
  return { ...target, kind: 'mock', close: target.kill };
}

async function own(binary) {
  const port = await freePort();
  const room = mkdtempSync(path.join(tmpdir(), 'sabir-console-'));
  const settings = [['listeners.http', port], ['listeners.stomp', await freePort()], ['listeners.any', await freePort()], ['listeners.mqtt', await freePort()]];
  const target = await process_(binary, ['serve', '--data-dir', room, ...settings.flatMap(([key, value]) => ['--set', `${key}=127.0.0.1:${value}`])], {}, port);
  return { ...target, kind: 'broker', close: () => target.kill().then(() => rmSync(room, { recursive: true, force: true })) };
}

export async function begin() {
  if (process.env.SABIR_URL) return { url: process.env.SABIR_URL.replace(/\/$/, ''), kind: 'broker', close: async () => {} };
  if (process.env.SABIR_BIN && existsSync(process.env.SABIR_BIN)) return own(process.env.SABIR_BIN);
  return mock();
}

export const chromiumPath = () => process.env.CHROMIUM ?? spawnSync('which', ['chromium'], { encoding: 'utf8' }).stdout.trim();
