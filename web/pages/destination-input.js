// A field for `queue://…` and `topic://…` that proposes what there is while one types.
import { html, useEffect, useId, useState } from '../ui.js';
import { get } from '../api.js';

export function DestinationInput({ value, onInput, wildcards = false, ...rest }) {
  const id = useId();
  const [offers, setOffers] = useState([]);
  useEffect(() => {
    const found = /^(queue|topic):\/\/(.*)$/.exec(value);
    if (!found || (wildcards && /[*>#+]/.test(found[2]))) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      get(`/v1/${found[1]}s`, { query: { filter: found[2], limit: 12 }, signal: abort.signal })
        .then((list) => setOffers(list.items.map((item) => item.destination ?? `${found[1]}://${item.name}`)), () => {});
    }, 200);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [value, wildcards]);
  return html`<input class="mono" value=${value} list=${id} spellcheck="false" autocomplete="off" autocapitalize="off"
      pattern="(queue|topic)://.+" title="queue://NAME or topic://NAME" onInput=${(event) => onInput(event.currentTarget.value)} ...${rest} />
    <datalist id=${id}>${offers.map((offer) => html`<option key=${offer} value=${offer} />`)}</datalist>`;
}
