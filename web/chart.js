// A chart over time that follows its box and the colours of the page.
import uPlot from './vendor/uplot.js';
import { html, useEffect, useLayoutEffect, useRef } from './ui.js';
import { compact } from './format.js';
import { useStore } from './store.js';
import { dark } from './theme.js';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The longest stretch that is drawn, so that the axis does not change while the first answers come.
const SPAN_S = 300;

// One point alone has no stretch of time around it: then an empty one before it gives it one.
function stretched(data) {
  if (data[0].length > 1) return data;
  const last = data[0][0] ?? Date.now() / 1000;
  return [[last - SPAN_S, last], ...data.slice(1).map(([value = null]) => [null, value])];
}

export function Chart({ title, series, data, lines, height = 150, format = compact }) {
  const box = useRef();
  const plot = useRef();
  const isDark = useStore(dark);
  useLayoutEffect(() => {
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    const made = new uPlot({
      width: Math.max(200, box.current.clientWidth),
      height,
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      padding: [8, 8, 0, 0],
      scales: {
        x: { time: true, range: (_, min, max) => [Math.min(min ?? max - SPAN_S, max - SPAN_S), max] },
        y: { range: (_, min, max) => [0, Math.max(4, (max ?? 0) * 1.15)] },
      },
      axes: [
        { ...axis, size: 26, space: 70, values: [[60, '{HH}:{mm}'], [1, '{HH}:{mm}:{ss}']].map(([incr, text]) => [incr, text, null, null, null, null, null, null, 1]) },
        { ...axis, size: 46, space: 34, values: (_, ticks) => ticks.map((tick) => format(tick)) },
      ],
      series: [{}, ...lines.map((line) => ({
        label: line.label, stroke: colour(line.colour), width: 1.6, fill: line.fill ? `${colour(line.colour)}22` : undefined, points: { show: false }, spanGaps: false,
      }))],
    }, stretched(data), box.current);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: Math.max(200, box.current.clientWidth), height }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [isDark, title, lines.length]);
  useEffect(() => {
    plot.current?.setData(stretched(data));
  }, [data[0].at(-1), data[0].length, title]);
  const latest = lines.map((line, i) => `${line.label} ${format(data[i + 1].at(-1) ?? 0)}`).join(', ');
  return html`<figure class="chart"><figcaption><span class="chart-title">${title}</span>
    <span class="legend">${lines.map((line, i) => html`<span key=${line.label}><i class="swatch" style=${{ background: `var(${line.colour})` }} />
      ${line.label} <b>${data[i + 1].length && data[i + 1].at(-1) !== null ? format(data[i + 1].at(-1)) : '–'}</b></span>`)}</span></figcaption>
    <div class="plot" style=${{ height: `${height}px` }} ref=${box} role="img" aria-label=${`${title}: ${latest}`} /></figure>`;
}
