// Numbers, sizes and times as people read them. No value is a dash, never an empty cell.
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const dash = '–';
export const count = (n) => (n === undefined || n === null ? dash : whole.format(n));
export const compact = (n) => (n === undefined || n === null ? dash : n < 10_000 ? whole.format(n) : short.format(n));

export function bytes(n) {
  if (n === undefined || n === null) return dash;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 || n >= 100 ? whole.format(n) : n.toFixed(1)} ${units[at]}`;
}

export function rate(n) {
  if (n === undefined || n === null || Number.isNaN(n)) return dash;
  if (n === 0) return '0';
  return n < 9.95 ? n.toFixed(1) : compact(Math.round(n));
}
export const perSecond = (n) => (n === undefined || n === null ? dash : `${rate(n)}/s`);

export function duration(ms) {
  if (ms === undefined || ms === null) return dash;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function time(ms) {
  if (!ms) return dash;
  const at = new Date(ms);
  const pad = (n, width = 2) => String(n).padStart(width, '0');
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} `
    + `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}
export const clock = (ms) => (ms ? time(ms).slice(11) : dash);
export const ago = (ms) => (ms ? duration(Math.max(0, Date.now() - ms)) : dash);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const text = (value) => (value === undefined || value === null || value === '' ? dash
  : typeof value === 'object' ? JSON.stringify(value) : String(value));

// A body's bytes, whatever form the envelope has it in.
export function bodyBytes(message) {
  if (message.bodyBase64 !== undefined) {
    return Uint8Array.from(atob(message.bodyBase64), (c) => c.charCodeAt(0));
  }
  if (message.body === undefined || message.body === null) return new Uint8Array();
  return new TextEncoder().encode(typeof message.body === 'string' ? message.body : JSON.stringify(message.body));
}

// The body as text, or undefined when it is none.
export function bodyText(message) {
  if (message.bodyBase64 === undefined) {
    const { body } = message;
    return body === undefined || body === null ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bodyBytes(message));
  } catch {
    return undefined;
  }
}

export function hexLines(data, most = 4096) {
  const lines = [];
  for (let at = 0; at < Math.min(data.length, most); at += 16) {
    const row = data.subarray(at, at + 16);
    const hex = [...row].map((b) => b.toString(16).padStart(2, '0')).join(' ').padEnd(47);
    const seen = [...row].map((b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : '·')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${hex}  ${seen}`);
  }
  if (data.length > most) lines.push(`… ${count(data.length - most)} bytes more`);
  return lines.join('\n');
}

export function base64(data) {
  let out = '';
  for (let at = 0; at < data.length; at += 0x8000) out += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return btoa(out);
}
