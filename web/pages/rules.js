// The rules that route messages and the policies that bound them, as they are in force. They
// come from the configuration file, so this page shows and does not change.
import { Badge, Empty, Head, Loaded, html } from '../ui.js';
import { destinationHref } from '../router.js';
import { Facts } from './queue.js';
import { get } from '../api.js';
import { text } from '../format.js';
import { usePoll } from '../poll.js';

const Place = ({ of }) => (destinationHref(of) ? html`<a class="mono" href=${destinationHref(of)}>${of}</a>` : html`<span class="mono">${of}</span>`);

function Composite({ of }) {
  return html`<article class="card rule"><h3><${Place} of=${of.name} /> ${of.forwardOnly ? html`<${Badge} title="Nothing stays at the name itself">forwards only<//>` : html`<${Badge} title="A copy stays at the name itself">and keeps a copy<//>`}</h3>
    <ul class="arrows">${(of.forwardTo ?? []).map((to, i) => html`<li key=${i}><span aria-hidden="true">→</span> <${Place} of=${to.destination ?? to} />${to.selector && html` if <code>${to.selector}</code>`}</li>`)}</ul></article>`;
}

export function Rules() {
  const rules = usePoll((signal) => get('/v1/rules', { signal }), 'rules', { every: 15_000 });
  const policies = usePoll((signal) => get('/v1/policies', { signal }), 'policies', { every: 15_000 });
  return html`<${Head} title="Rules & policies" sub="as configured" />
    <${Loaded} poll=${rules}>${(all) => html`
      <h2>Composite destinations</h2>${all.composites?.length ? html`<div class="grid three">${all.composites.map((one) => html`<${Composite} key=${one.name} of=${one} />`)}</div>`
    : html`<p class="muted">None: what is sent to a name goes to that name.</p>`}
      <h2>Virtual topics</h2>${all.virtualTopics?.length ? html`<div class="grid three">${all.virtualTopics.map((one) => html`<article key=${one.name} class="card rule"><h3><span class="mono">${one.name}</span></h3>
        <p>Consumers take from <code>${one.prefix ?? ''}${'TOPIC'}${one.postfix ?? ''}</code></p></article>`)}</div>` : html`<p class="muted">None.</p>`}
      <h2>Mirrored queues</h2>${all.mirroredQueues ? html`<article class="card rule"><${Facts} of=${all.mirroredQueues} /></article>` : html`<p class="muted">Queues are not mirrored to topics.</p>`}`}<//>
    <h2>Policies</h2>
    <${Loaded} poll=${policies}>${(answer) => {
    const list = Array.isArray(answer) ? answer : answer.items ?? answer.policies ?? [answer];
    return list.length ? html`<div class="grid two">${list.map((one, i) => {
      const { name, pattern, match, destination, ...rest } = one;
      return html`<article key=${i} class="card rule"><h3 class="mono">${text(name ?? pattern ?? match ?? destination ?? 'all destinations')}</h3><${Facts} of=${rest} /></article>`;
    })}</div>` : html`<${Empty} title="No policies beyond the defaults" />`;
  }}<//>`;
}
