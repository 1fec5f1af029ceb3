// What the console's tests run against: a broker that is there (SABIR_URL), or one of our own
// that can be killed and started again (SABIR_BIN).
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

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

// With these users, by name; without any, everybody is let in.
export async function own(users = {}) {
  const binary = process.env.SABIR_BIN;
  const port = await freePort();
  const room = mkdtempSync(path.join(tmpdir(), 'sabir-console-'));
  for (const [name, password] of Object.entries(users)) spawnSync(binary, ['user', 'add', name, '--data-dir', room], { input: password });
  const more = ['--set', 'webhooks.allowed_targets=127.0.0.1'];
  const settings = [['listeners.http', port], ['listeners.stomp', await freePort()], ['listeners.any', await freePort()], ['listeners.mqtt', await freePort()]];
  const target = await process_(binary, ['serve', '--data-dir', room, ...settings.flatMap(([key, value]) => ['--set', `${key}=127.0.0.1:${value}`]), ...more], {}, port);
  return { ...target, hook: 'http://127.0.0.1:9/hook', close: () => target.kill().then(() => rmSync(room, { recursive: true, force: true })) };
}

export async function begin() {
  if (process.env.SABIR_URL) return { url: process.env.SABIR_URL.replace(/\/$/, ''), hook: 'https://example.com/hook', close: async () => {} };
  if (process.env.SABIR_BIN) return own();
  throw new Error('say which broker: SABIR_BIN is its binary, or SABIR_URL where it is');
}

export const chromiumPath = () => process.env.CHROMIUM ?? spawnSync('which', ['chromium'], { encoding: 'utf8' }).stdout.trim();
