// Who sends what to whom, as a picture: publishers on the left, subscribers on the right, and
// the destinations and rules in between. Lines carry the rate of the last two seconds.
import { Empty, Head, Loaded, Select, Table, html, useRef, useState } from '../ui.js';
import { adjust, destinationHref, href } from '../router.js';
import { compact, count, perSecond } from '../format.js';
import { Rates, usePoll } from '../poll.js';
import { get } from '../api.js';

const WIDTH = 196;
const HEIGHT = 30;
const GAP_X = 112;
const GAP_Y = 12;
const KINDS = { publisher: 'Publisher', topic: 'Topic', queue: 'Queue', rule: 'Rule', subscriber: 'Subscriber' };

// Columns by the longest way from a publisher, rows by where neighbours are. The same picture
// gives the same places, so nothing jumps from one answer to the next.
export function layout({ nodes, edges }) {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const links = edges.filter((edge) => known.has(edge.from) && known.has(edge.to));
  const into = new Map(nodes.map((node) => [node.id, []]));
  for (const edge of links) into.get(edge.to).push(edge.from);
  const column = new Map();
  const depth = (id, seen) => {
    if (column.has(id)) return column.get(id);
    const node = known.get(id);
    let at = node.kind === 'publisher' ? 0 : 1;
    if (node.kind !== 'publisher' && !seen.has(id)) {
      seen.add(id);
      // Loops of rules end where they began.
      for (const from of into.get(id)) at = Math.max(at, depth(from, seen) + 1);
      seen.delete(id);
    }
    column.set(id, Math.min(at, 5));
    return column.get(id);
  };
  for (const node of nodes.filter((one) => one.kind !== 'subscriber')) depth(node.id, new Set());
  const last = Math.max(1, ...column.values()) + 1;
  for (const node of nodes.filter((one) => one.kind === 'subscriber')) column.set(node.id, last);
  const columns = Array.from({ length: last + 1 }, () => []);
  for (const node of [...nodes].sort((a, b) => (a.label < b.label ? -1 : a.label > b.label ? 1 : 0))) columns[column.get(node.id)].push(node);
  // Columns that nobody is in would only stretch the picture.
  const used = columns.filter((list) => list.length);
  used.forEach((list, x) => list.forEach((node) => column.set(node.id, x)));
  // A line over several columns goes through a place of its own in each, so that it crosses no box.
  const near = { into: new Map(nodes.map(({ id }) => [id, []])), outOf: new Map(nodes.map(({ id }) => [id, []])) };
  const ways = links.map((edge) => {
    const way = [edge.from];
    for (let x = column.get(edge.from) + 1; x < column.get(edge.to); x += 1) {
      const id = `${edge.from}\n${edge.to}\n${edge.kind}\n${x}`;
      used[x].push({ id, label: known.get(edge.to).label, waypoint: true });
      near.into.set(id, []);
      near.outOf.set(id, []);
      way.push(id);
    }
    way.push(edge.to);
    way.slice(1).forEach((id, i) => {
      near.into.get(id).push(way[i]);
      near.outOf.get(way[i]).push(id);
    });
    return way;
  });
  const middle = new Map();
  const height = (node) => (node.waypoint ? 10 : HEIGHT) + GAP_Y;
  const stack = (list) => {
    let y = -list.reduce((sum, node) => sum + height(node), 0) / 2;
    for (const node of list) {
      middle.set(node.id, y + height(node) / 2);
      y += height(node);
    }
  };
  used.forEach(stack);
  for (let sweep = 0; sweep < 8; sweep += 1) {
    const forward = sweep % 2 === 0;
    for (const list of forward ? used : [...used].reverse()) {
      const pulls = new Map(list.map((node) => {
        const around = (forward ? near.into : near.outOf).get(node.id);
        return [node.id, around.length ? around.reduce((sum, id) => sum + middle.get(id), 0) / around.length : middle.get(node.id)];
      }));
      list.sort((a, b) => pulls.get(a.id) - pulls.get(b.id) || (a.label < b.label ? -1 : 1));
      stack(list);
    }
  }
  const tallest = Math.max(...used.map((list) => list.reduce((sum, node) => sum + height(node), 0)), HEIGHT);
  const places = new Map();
  used.forEach((list, x) => list.forEach((node) => places.set(node.id, { node, x: x * (WIDTH + GAP_X) + 2, y: middle.get(node.id) + tallest / 2 + 24 })));
  return { places, lines: links.map((edge, i) => ({ edge, points: ways[i].map((id) => places.get(id)) })), width: used.length * (WIDTH + GAP_X) - GAP_X + 4, height: tallest + 30 };
}

// A curve from box to box; through a way-point it runs straight.
function curve(points) {
  let [x, y] = [points[0].x + WIDTH, points[0].y];
  let path = `M${x} ${y}`;
  for (const next of points.slice(1)) {
    const bend = Math.max(36, (next.x - x) / 2);
    path += `C${x + bend} ${y} ${next.x - bend} ${next.y} ${next.x} ${next.y}`;
    [x, y] = [next.x, next.y];
    if (next.node.waypoint) path += `H${x += WIDTH}`;
  }
  return path;
}

// All that lies up and down the stream from one node.
function stream(id, links) {
  const found = new Set([id]);
  for (const [from, to] of [['from', 'to'], ['to', 'from']]) {
    const open = [id];
    while (open.length) {
      const next = open.pop();
      for (const link of links) {
        if (link[from] === next && !(found.has(link[to]) && link[to] !== id)) {
          if (!found.has(link[to])) open.push(link[to]);
          found.add(link[to]);
        }
      }
    }
  }
  return found;
}

const shortened = (label) => (label.length > 24 ? `${label.slice(0, 12)}…${label.slice(-11)}` : label);

function target(node) {
  if (node.kind === 'queue' || node.kind === 'topic') return destinationHref(`${node.kind}://${node.label.replace(/^(queue|topic):\/\//, '')}`);
  if (node.kind === 'rule') return href(['rules']);
  const connection = /^(?:publisher|subscriber|connection|p|s|c)[:/-](\d+)$/.exec(node.id)?.[1];
  return connection ? href(['connections', connection]) : href(['connections'], { filter: node.label });
}

function Picture({ graph, rates }) {
  const [at, setAt] = useState();
  const { places, lines, width, height } = layout(graph);
  const boxes = [...places.values()].filter(({ node }) => !node.waypoint);
  const lit = at !== undefined && places.has(at) ? stream(at, graph.edges) : undefined;
  const heads = [];
  for (const { node, x } of boxes) {
    if (!heads.some((head) => head.x === x)) heads.push({ x, kinds: new Set() });
    heads.find((head) => head.x === x).kinds.add(`${KINDS[node.kind] ?? node.kind}s`);
  }
  return html`<div class="picture-scroll" tabindex="0" role="region" aria-label="Routing picture; the table below says the same">
    <svg class="picture" viewBox=${`0 0 ${width} ${height}`} width=${width} height=${height} role="group" aria-label="Routing">
      ${heads.map(({ x, kinds }) => html`<text key=${x} class="column-head" x=${x + 2} y="12">${[...kinds].join(', ')}</text>`)}
      ${lines.map(({ edge, points }) => {
    const flow = rates.get(edge) ?? 0;
    const dim = lit && !(lit.has(edge.from) && lit.has(edge.to));
    return html`<g key=${`${edge.from}\n${edge.to}\n${edge.kind}`} class=${`edge ${edge.kind} ${flow > 0 ? 'flows' : ''} ${dim ? 'dim' : ''}`}>
          <path d=${curve(points)} style=${{ strokeWidth: `${1.2 + Math.min(4, Math.log10(1 + flow) * 1.5)}px` }}><title>${`${points[0].node.label} → ${points.at(-1).node.label}: ${count(edge.messages)} in all`}</title></path></g>`;
  })}
      ${lines.map(({ edge, points }) => {
    const flow = rates.get(edge) ?? 0;
    if (!(flow > 0) || (lit && !(lit.has(edge.from) && lit.has(edge.to)))) return null;
    const said = perSecond(flow);
    // Nearer to the end that fewer lines share, so that the numbers lie apart.
    const crowded = (end) => lines.filter((one) => one.edge[end] === edge[end]).length;
    const early = crowded('to') > crowded('from');
    const [a, b] = early ? points.slice(0, 2) : points.slice(-2);
    const share = early ? 0.32 : 0.68;
    const eased = share * share * (3 - 2 * share);
    const [x, y] = [a.x + WIDTH + (b.x - a.x - WIDTH) * share, a.y + (b.y - a.y) * eased];
    return html`<g key=${`${edge.from}\n${edge.to}\n${edge.kind}`} class="rate"><rect x=${x - said.length * 3.4 - 4} y=${y - 8} width=${said.length * 6.8 + 8} height="16" rx="8" /><text x=${x} y=${y + 4}>${said}</text></g>`;
  })}
      ${boxes.map(({ node, x, y }) => html`<a key=${node.id} href=${target(node)} class=${`node ${node.kind} ${lit && !lit.has(node.id) ? 'dim' : ''}`}
        onMouseEnter=${() => setAt(node.id)} onMouseLeave=${() => setAt(undefined)} onFocus=${() => setAt(node.id)} onBlur=${() => setAt(undefined)} aria-label=${`${KINDS[node.kind] ?? node.kind} ${node.label}`}>
        <title>${node.label}</title><rect x=${x} y=${y - HEIGHT / 2} width=${WIDTH} height=${HEIGHT} rx=${node.kind === 'publisher' || node.kind === 'subscriber' ? 15 : 5} />
        <text x=${x + 14} y=${y + 4}>${shortened(node.label)}</text></a>`)}
    </svg></div>`;
}

export function Routing({ query }) {
  const limit = query.limit || '50';
  const rates = useRef(new Rates(['messages'])).current;
  const poll = usePoll((signal) => get('/v1/routing', { query: { limit }, signal }), limit);
  return html`<${Head} title="Routing" sub="publishers → destinations → subscribers"><label class="inline">Busiest <${Select} value=${limit} options=${[['10', '10'], ['25', '25'], ['50', '50'], ['100', '100']]}
      onChange=${(value) => adjust({ limit: value === '50' ? '' : value })} /></label><//>
    <${Loaded} poll=${poll} skeleton=${10}>${(graph) => {
    if (!graph.nodes.length) return html`<${Empty} title="Nothing flows yet"><p>Once somebody publishes or subscribes, it is drawn here. <a href=${href(['try'])}>Try it in the browser</a>.</p><//>`;
    const flow = new Map(graph.edges.map((edge) => [edge, rates.of(`${edge.from}\n${edge.to}\n${edge.kind}`, edge).messages]));
    const label = new Map(graph.nodes.map((node) => [node.id, node]));
    return html`<p class="legend-row"><span class="key publish">publish</span><span class="key route">route</span><span class="key binding">binding</span><span class="key consume">consume</span>
        ${graph.truncated && html`<span class="muted">only the busiest are drawn</span>`}</p>
      <${Picture} graph=${graph} rates=${flow} />
      <details class="as-table"><summary>The same as a table</summary><${Table} caption="Routing" dense id=${(edge) => `${edge.from}\n${edge.to}\n${edge.kind}`} rows=${[...graph.edges].sort((a, b) => b.messages - a.messages)} columns=${[
    { key: 'from', title: 'From', render: (edge) => html`<a class="mono cut" data-row href=${target(label.get(edge.from) ?? { id: edge.from, label: edge.from })}>${label.get(edge.from)?.label ?? edge.from}</a>` },
    { key: 'kind', title: 'How', width: 'w-type', render: (edge) => edge.kind },
    { key: 'to', title: 'To', render: (edge) => html`<a class="mono cut" href=${target(label.get(edge.to) ?? { id: edge.to, label: edge.to })}>${label.get(edge.to)?.label ?? edge.to}</a>` },
    { key: 'rate', title: 'Now', num: true, render: (edge) => perSecond(flow.get(edge)) },
    { key: 'all', title: 'In all', num: true, low: 1, render: (edge) => compact(edge.messages) },
  ]} /></details>`;
  }}<//>`;
}
