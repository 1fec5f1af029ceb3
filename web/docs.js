// Draws `/openapi.yaml` for people: what there is to call, with what, what comes back, and the
// call as one line for a terminal.
import './theme.js';
import { html, render, useEffect, useMemo, useState } from './ui.js';
import { load } from './vendor/js-yaml.js';

const METHODS = ['get', 'head', 'post', 'put', 'patch', 'delete'];

// Follows `$ref`s inside the document; a few steps only, so that a loop ends.
function resolve(all, node, steps = 8) {
  if (!node?.$ref || steps === 0) return node;
  const found = node.$ref.replace(/^#\//, '').split('/').reduce((at, part) => at?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], all);
  return resolve(all, found, steps - 1);
}
const nameOf = (node) => node?.$ref?.split('/').at(-1);

// `code`, *emphasis* and paragraphs; anything else is shown as it is written.
function Prose({ text }) {
  if (!text) return null;
  return String(text).trim().split(/\n\s*\n/).map((block, i) => html`<p key=${i}>${block.split(/(`[^`]+`)/).map((part, at) => (part.startsWith('`') && part.length > 2 ? html`<code key=${at}>${part.slice(1, -1)}</code>` : part))}</p>`);
}

function typeOf(all, given) {
  const schema = resolve(all, given);
  if (!schema) return 'anything';
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(' | ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  for (const word of ['oneOf', 'anyOf']) if (schema[word]) return schema[word].map((one) => typeOf(all, one)).join(' or ');
  if (schema.type === 'array') return `list of ${typeOf(all, schema.items)}`;
  const type = [].concat(schema.type ?? (schema.properties ? 'object' : 'anything')).join(' or ');
  const bounds = [schema.format, schema.minimum !== undefined && `≥ ${schema.minimum}`, schema.maximum !== undefined && `≤ ${schema.maximum}`, schema.default !== undefined && `usually ${JSON.stringify(schema.default)}`].filter(Boolean);
  return `${nameOf(given) ?? type}${bounds.length ? `, ${bounds.join(', ')}` : ''}`;
}

// The properties of an object, those of its parts included.
function fields(all, given) {
  const schema = resolve(all, given);
  if (!schema) return { properties: {}, required: [] };
  const parts = (schema.allOf ?? []).map((part) => fields(all, part));
  const inner = schema.type === 'array' ? fields(all, schema.items) : { properties: {}, required: [] };
  return {
    properties: Object.assign({}, inner.properties, ...parts.map((part) => part.properties), schema.properties),
    required: [...inner.required, ...parts.flatMap((part) => part.required), ...(schema.required ?? [])],
  };
}

function Schema({ all, schema, depth = 0 }) {
  const { properties, required } = fields(all, schema);
  const names = Object.keys(properties);
  if (!names.length) return html`<p class="muted">${typeOf(all, schema)} <${Prose} text=${resolve(all, schema)?.description} /></p>`;
  return html`<dl class="values schema">${names.map((name) => {
    const property = resolve(all, properties[name]);
    const inner = depth < 2 && Object.keys(fields(all, properties[name]).properties).length > 0;
    return html`<div key=${name}><dt class="mono">${name}${required.includes(name) && html`<span class="required" title="required"> *</span>`}<small>${typeOf(all, properties[name])}</small></dt>
      <dd><${Prose} text=${properties[name].description ?? property?.description} />${inner && html`<details><summary>its members</summary><${Schema} all=${all} schema=${properties[name]} depth=${depth + 1} /></details>`}</dd></div>`;
  })}</dl>`;
}

function sample(all, given, depth = 0) {
  const schema = resolve(all, given);
  if (!schema || depth > 3) return null;
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.oneOf ?? schema.anyOf) return sample(all, (schema.oneOf ?? schema.anyOf)[0], depth);
  const type = [].concat(schema.type)[0];
  if (type === 'array') return [sample(all, schema.items, depth + 1)];
  const { properties, required } = fields(all, schema);
  if (Object.keys(properties).length) {
    const wanted = required.length ? required : Object.keys(properties).slice(0, 2);
    return Object.fromEntries(wanted.filter((name) => properties[name]).map((name) => [name, sample(all, properties[name], depth + 1)]));
  }
  return { integer: 1, number: 1, boolean: true, object: {} }[type] ?? '…';
}

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function curl(all, path, method, operation, parameters) {
  const filled = path.replace(/\{([^}]+)\}/g, (_, name) => {
    const parameter = parameters.find((one) => one.in === 'path' && one.name === name);
    const value = parameter?.example ?? resolve(all, parameter?.schema)?.example;
    return value === undefined ? name.toUpperCase().replace(/^\*/, '') : encodeURIComponent(value);
  });
  const query = parameters.filter((one) => one.in === 'query' && (one.required || one.example !== undefined)).map((one) => `${one.name}=${encodeURIComponent(one.example ?? 'VALUE')}`).join('&');
  const words = ['curl'];
  if (method !== 'get') words.push(`-X ${method.toUpperCase()}`);
  const [type, media] = Object.entries(resolve(all, operation.requestBody)?.content ?? {})[0] ?? [];
  if (type) {
    const body = media.example ?? Object.values(media.examples ?? {})[0]?.value ?? sample(all, media.schema);
    words.push(`-H ${quoted(`Content-Type: ${type}`)}`, `-d ${quoted(typeof body === 'string' ? body : JSON.stringify(body))}`);
  }
  words.push(quoted(`${location.origin}${filled}${query ? `?${query}` : ''}`));
  return words.join(' ');
}

function Curl({ text }) {
  const [copied, set] = useState(false);
  const copy = () => navigator.clipboard?.writeText(text).then(() => {
    set(true);
    setTimeout(() => set(false), 1500);
  }, () => {});
  return html`<div class="curl"><pre tabindex="0">${text}</pre><button type="button" class="button quiet small" onClick=${copy}>${copied ? 'Copied' : 'Copy'}</button></div>`;
}

function Operation({ all, op }) {
  const { path, method, operation, parameters } = op;
  const body = resolve(all, operation.requestBody);
  return html`<article class="card op" id=${op.id}><header><span class=${`method ${method}`}>${method.toUpperCase()}</span><code>${path}</code></header>
    <h2>${operation.summary}</h2><${Prose} text=${operation.description} />
    ${parameters.length > 0 && html`<h3>Parameters</h3><dl class="values">${parameters.map((one) => html`<div key=${`${one.in} ${one.name}`}><dt class="mono">${one.name}${one.required && html`<span class="required" title="required"> *</span>`}<small>${one.in}, ${typeOf(all, one.schema)}</small></dt><dd><${Prose} text=${one.description} /></dd></div>`)}</dl>`}
    ${body && html`<h3>Body</h3><${Prose} text=${body.description} />${Object.entries(body.content ?? {}).map(([type, media]) => html`<details key=${type}><summary class="mono">${type}</summary><${Schema} all=${all} schema=${media.schema} /></details>`)}`}
    <h3>Answers</h3><dl class="values">${Object.entries(operation.responses ?? {}).map(([status, given]) => {
    const response = resolve(all, given);
    return html`<div key=${status}><dt class="mono">${status}</dt><dd><${Prose} text=${response?.description} />${Object.entries(response?.content ?? {}).map(([type, media]) => html`<details key=${type}><summary class="mono">${type}</summary><${Schema} all=${all} schema=${media.schema} /></details>`)}</dd></div>`;
  })}</dl>
    <h3>From a terminal</h3><${Curl} text=${curl(all, path, method, operation, parameters)} /></article>`;
}

function operations(all) {
  const groups = new Map((all.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, item] of Object.entries(all.paths ?? {})) {
    for (const method of METHODS.filter((one) => item[one])) {
      const operation = item[method];
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((one) => resolve(all, one)).filter(Boolean);
      const tag = operation.tags?.[0] ?? (path.startsWith('/v1/') ? path.split('/')[2] : path.startsWith('/healthz') ? 'health' : 'server');
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push({ id: operation.operationId ?? `${method}-${path}`, path, method, operation, parameters });
    }
  }
  return [...groups];
}

function Docs() {
  const [all, setAll] = useState();
  const [error, setError] = useState();
  const [words, setWords] = useState('');
  useEffect(() => {
    fetch('/openapi.yaml').then((response) => response.text()).then((text) => setAll(load(text))).catch(setError);
  }, []);
  useEffect(() => {
    if (all && location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }, [all]);
  const groups = useMemo(() => (all ? operations(all) : []), [all]);
  if (error) return html`<main><p role="alert">The API cannot be shown: ${error.message}. <a href="/openapi.yaml">openapi.yaml</a></p></main>`;
  if (!all) return html`<main class="opening"><p>Opening …</p></main>`;
  const wanted = words.toLowerCase();
  const shown = groups.map(([tag, list]) => [tag, list.filter((op) => `${op.method} ${op.path} ${op.operation.summary}`.toLowerCase().includes(wanted))]).filter(([, list]) => list.length);
  const tagText = (tag) => (all.tags ?? []).find((one) => one.name === tag)?.description;
  return html`<div class="docs"><nav class="index" aria-label="Calls"><a class="brand" href="/"><img src="/console/icon.svg" alt="" width="22" height="22" />Sabir</a>
      <input type="search" aria-label="Find a call" placeholder="Find a call" value=${words} onInput=${(event) => setWords(event.currentTarget.value)} />
      ${shown.map(([tag, list]) => html`<p key=${`t${tag}`}>${tag}</p><ul key=${tag}>${list.map((op) => html`<li key=${op.id}><a href=${`#${encodeURIComponent(op.id)}`}><span class=${`method ${op.method}`}>${op.method.toUpperCase()}</span><span>${op.operation.summary ?? op.path}</span></a></li>`)}</ul>`)}</nav>
    <main><header><h1>${all.info?.title} API <span class="muted">${all.info?.version}</span></h1><p class="muted">${all.info?.summary}</p><${Prose} text=${all.info?.description} /><p>For machines: <a href="/openapi.yaml">openapi.yaml</a></p></header>
      ${shown.length === 0 && html`<p>Nothing is called like that.</p>`}
      ${shown.map(([tag, list]) => html`<section key=${tag} aria-label=${tag}><h2 class="tag">${tag}</h2><${Prose} text=${tagText(tag)} />${list.map((op) => html`<${Operation} key=${op.id} all=${all} op=${op} />`)}</section>`)}</main></div>`;
}

document.getElementById('app').replaceChildren();
render(html`<${Docs} />`, document.getElementById('app'));
