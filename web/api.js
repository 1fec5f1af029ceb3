// Every call of the HTTP API goes through here: one header that tells the server it is
// the console, one form of error, and one place that notices when nobody answers.
import { vhost } from './router.js';
import { store } from './store.js';

export class ApiError extends Error {
  constructor(status, code, detail, field) {
    super(detail);
    Object.assign(this, { status, code, field });
  }
}

// Does the server answer: 'up', 'down', or undefined before the first answer.
export const link = store(undefined);
// Set when the API wants to know who we are.
export const locked = store(false);
// What `GET /v1/session` said last.
export const session = store(undefined);

function address(path, query) {
  const all = new URLSearchParams();
  if (path.startsWith('/v1/') && vhost() !== '/') all.set('vhost', vhost());
  for (const [key, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== '') all.set(key, value);
  }
  const text = all.toString();
  return text ? `${path}?${text}` : path;
}

async function problem(response) {
  const type = response.headers.get('content-type') ?? '';
  if (type.includes('json')) {
    const said = await response.json().catch(() => ({}));
    return new ApiError(response.status, said.code ?? 'internal', said.detail ?? said.title ?? response.statusText, said.field);
  }
  const said = (await response.text().catch(() => '')).trim();
  return new ApiError(response.status, response.status === 404 ? 'unknown-path' : 'internal',
    said.slice(0, 300) || `the server answered ${response.status}`);
}

// Returns the parsed JSON, or undefined when there is no body. Throws ApiError.
export async function call(method, path, { query, body, signal, headers } = {}) {
  const given = body === undefined ? {} : { 'content-type': 'application/json' };
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      signal,
      headers: { accept: 'application/json', 'x-requested-with': 'sabir-console', ...given, ...headers },
      body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    link.set('down');
    throw new ApiError(0, 'unreachable', 'the broker does not answer');
  }
  link.set('up');
  if (response.status === 401 && path !== '/v1/session') askSession().catch(() => {});
  if (!response.ok) throw await problem(response);
  if (response.status === 204) return undefined;
  const type = response.headers.get('content-type') ?? '';
  return type.includes('json') ? response.json() : response.text();
}

export const get = (path, options) => call('GET', path, options);
export const post = (path, body, options) => call('POST', path, { body, ...options });
export const put = (path, body, options) => call('PUT', path, { body, ...options });
export const remove = (path, options) => call('DELETE', path, options);
export const segment = encodeURIComponent;

export async function askSession({ again = true } = {}) {
  try {
    session.set(await get('/v1/session'));
    locked.set(false);
  } catch (error) {
    // A login that is over is in the way of those who may come without one: it is put away first.
    if (error.status === 401 && again) {
      await remove('/v1/session').catch(() => {});
      await askSession({ again: false });
    } else if (error.status === 401) locked.set(true);
    // An older server without sessions is used as whoever the browser is.
    else if (error.status === 404) session.set({ user: null, anonymous: true, may: { manage: true } });
    else throw error;
  }
}

export async function login(user, password) {
  await post('/v1/session', { user, password });
  await askSession();
}

export async function logout() {
  await remove('/v1/session');
  session.set(undefined);
  locked.set(true);
}
