// What can be said about a page without looking: names of controls, headings, labels, contrast,
// and that it does not scroll sideways. Runs inside the page; gives a list of complaints.
export function audit() {
  const complaints = [];
  const visible = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  };
  const show = (element) => element.outerHTML.slice(0, 120);
  const nameOf = (element) => element.getAttribute('aria-label') || element.labels?.[0]?.textContent?.trim() || element.textContent.trim() || element.title
    || (element.getAttribute('aria-labelledby') && document.getElementById(element.getAttribute('aria-labelledby'))?.textContent);
  for (const element of document.querySelectorAll('button,a[href],input,select,textarea,dialog,[role=region],[role=tab],nav')) {
    if (visible(element) && !nameOf(element)) complaints.push(`no name: ${show(element)}`);
  }
  for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) complaints.push(`no alt: ${show(image)}`);
  if (document.querySelectorAll('h1').length !== 1) complaints.push(`${document.querySelectorAll('h1').length} headings of level 1`);
  for (const table of document.querySelectorAll('table')) {
    if (!table.caption) complaints.push('a table without caption');
    for (const head of table.querySelectorAll('thead th')) if (head.scope !== 'col') complaints.push(`no scope: ${show(head)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
  const twice = ids.find((id, i) => ids.indexOf(id) !== i);
  if (twice) complaints.push(`the id ${twice} is there twice`);
  if (document.documentElement.scrollWidth > innerWidth + 1) complaints.push(`scrolls sideways: ${document.documentElement.scrollWidth} in ${innerWidth}`);
  if (!document.documentElement.lang) complaints.push('no language');

  // Contrast of text with the nearest background that is not transparent (WCAG 2.1, 1.4.3).
  const parse = (colour) => colour.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const bad = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(element) || element.closest('svg,:disabled,.unseen,.skip')) continue;
    let at = element;
    while (at && (parse(getComputedStyle(at).backgroundColor)[3] ?? 1) === 0) at = at.parentElement;
    const back = light(parse(at ? getComputedStyle(at).backgroundColor : 'rgb(255,255,255)'));
    const fore = light(parse(getComputedStyle(element).color));
    const ratio = (Math.max(back, fore) + 0.05) / (Math.min(back, fore) + 0.05);
    if (ratio < 4.5) bad.add(`contrast ${ratio.toFixed(2)}: ${show(element)}`);
  }
  return [...complaints, ...bad];
}
