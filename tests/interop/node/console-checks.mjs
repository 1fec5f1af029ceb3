// What a person does with the console. Each check has a browser and destinations of its own,
// and prepares and verifies over the API.
import { audit } from './console-audit.mjs';
import { mock } from './console-target.mjs';
import { at, check, confirm, fill, holds, note, ready, row, same, stat, texts, unique, until } from './console-words.mjs';

export { checks } from './console-words.mjs';

const PAGES = ['', 'routing', 'connections', 'queues', 'topics', 'subscriptions', 'dead-letters', 'publish', 'tail', 'try', 'rules'];
// Every page, and one queue with an open message: what there is to look at.
async function tour({ api, open, page, shot }, complain) {
  const name = unique('tour');
  await fill(api, name, [{ contentType: 'application/json', body: JSON.stringify({ order: 7, items: ['tea', 'salt'] }), properties: { region: 'EU' } }, ...texts(5)]);
  const first = (await api('GET', `${at(name)}/messages`)).items[0].sequence;
  for (const hash of [...PAGES, `queues/${name}`, `queues/${name}?message=${first}`]) {
    await open(hash);
    await until(async () => await page.locator('.skeleton').count() === 0, 'everything is there');
    if (hash === '' || hash === 'routing') await page.waitForResponse((response) => response.url().includes('/v1/'));
    await shot(`-${hash.replace(name, 'queue').replace(/[^a-z]+/g, '-') || 'overview'}`);
    const said = await page.evaluate(audit);
    if (said.length) complain.push(`#/${hash}: ${said.join('; ')}`);
  }
  await api('DELETE', at(name));
}
const toured = async (given) => {
  const complaints = [];
  await tour(given, complaints);
  same(complaints, [], 'complaints');
};

check('every page is legible and named in light', toured);
check('every page is legible and named in dark', toured, { colorScheme: 'dark' });
check('every page fits a phone', toured, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });

check('the overview follows what is published', async ({ api, open, page }) => {
  const name = unique('flow');
  await open('');
  await stat(page, 'Published').waitFor();
  const before = (await api('GET', '/v1/overview')).published;
  await fill(api, name, texts(30));
  await page.locator('.stats dd.note').first().filter({ hasText: /in all/ }).waitFor();
  await until(async () => (await api('GET', '/v1/overview')).published >= before + 30, 'the total grows');
  await page.locator('.chart canvas').first().waitFor();
  await until(async () => /^[\d.]+[KM]?\/s$|^0\/s$/.test(await stat(page, 'Published').textContent()), 'a rate is shown');
  await api('DELETE', at(name));
});

check('queues are searched, ordered and paged by the server', async ({ api, open, page, target, shot }) => {
  const name = unique('pile');
  const n = target.kind === 'mock' ? 130 : 230;
  for (let i = 0; i < n; i += 20) await Promise.all(Array.from({ length: Math.min(20, n - i) }, (_, j) => api('PUT', at(`${name}.${String(i + j).padStart(4, '0')}`))));
  await api('POST', `${at(`${name}.0077`)}/messages`, texts(3));
  await open('queues');
  const all = (await api('GET', '/v1/queues?limit=1')).total;
  const began = performance.now();
  await page.getByLabel('Filter queues by name').fill(`${name}.`);
  await page.locator('.head .sub', { hasText: `${n} queues` }).waitFor();
  console.log(`     searching ${all} queues took ${Math.round(performance.now() - began)} ms, typing pause included`);
  same(await page.locator('tbody tr').count(), 100, 'rows on the first page');
  same(await page.locator('.pager-where').textContent(), `1–100 of ${n}`, 'place');
  await page.getByRole('button', { name: 'Next' }).click();
  await row(page, `${name}.0100`).waitFor();
  holds(page.url().includes('page=2'), 'the page is in the address');
  await page.reload();
  await row(page, `${name}.0100`).waitFor();
  await page.getByRole('button', { name: 'Previous' }).click();
  await row(page, `${name}.0000`).waitFor();
  await page.getByLabel('Order').selectOption('-ready');
  await until(async () => (await page.locator('tbody tr').first().textContent()).includes(`${name}.0077`), 'the fullest comes first');
  await shot();
  await page.getByLabel('Filter queues by name').fill(`${name}.*77`);
  await page.locator('.head .sub', { hasText: /^1 queue$/ }).waitFor();
  await page.getByLabel('Filter queues by name').fill(`${name}.nothing`);
  await page.getByText('No queue matches').waitFor();
  await page.getByRole('button', { name: 'Show all' }).click();
  await page.locator('.head .sub', { hasText: all.toLocaleString('en') }).waitFor();
});

check('the keyboard goes everywhere', async ({ api, open, page }) => {
  const name = unique('keys');
  await fill(api, `${name}.a`, texts(2));
  await fill(api, `${name}.b`, texts(2));
  await open('');
  await page.keyboard.press('g');
  await page.keyboard.press('q');
  await page.getByRole('heading', { name: 'Queues' }).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type(name);
  await row(page, `${name}.b`).waitFor();
  await until(async () => await page.locator('tbody tr').count() === 2, 'both are there alone');
  await page.locator('tbody [data-row]').first().focus();
  await page.keyboard.press('ArrowDown');
  same(await page.evaluate(() => document.activeElement.textContent), `${name}.b`, 'focus after the arrow');
  holds(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== 'none'), 'the focus is seen');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: `${name}.b` }).waitFor();
  await page.getByRole('tab', { name: /Messages/ }).focus();
  await page.keyboard.press('ArrowRight');
  same(await page.evaluate(() => document.activeElement.textContent.startsWith('Consumers')), true, 'tab after the arrow');
  await page.keyboard.press('ArrowLeft');
  await page.locator('tbody [data-row]').first().focus();
  await page.keyboard.press('Enter');
  await page.getByRole('complementary').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('complementary').waitFor({ state: 'detached' });
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await page.goto(page.url().replace(/#.*/, '#/topics'));
  await page.reload();
  await page.getByRole('heading', { name: 'Topics' }).waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  same(await page.evaluate(() => document.activeElement.tagName), 'H1', 'focus after the skip link');
});

check('a queue is declared, and deleted only when confirmed', async ({ api, open, page }) => {
  const name = unique('made');
  await open('queues');
  await page.getByRole('button', { name: 'Declare a queue' }).click();
  await page.getByRole('dialog').getByLabel('Name').fill(name);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name }).waitFor();
  await page.getByText('This queue is empty').waitFor();
  await page.getByRole('button', { name: 'Delete', exact: true }).first().click();
  await confirm(page, 'Cancel');
  holds(await api('GET', at(name)), 'it is still there');
  await page.getByRole('button', { name: 'Delete', exact: true }).first().click();
  await confirm(page, 'Delete');
  await note(page, `${name} deleted`);
  await page.getByRole('heading', { name: 'Queues' }).waitFor();
  page.forgives = [/404/];
  await open(`queues/${name}`);
  await page.getByText('There is no such queue').waitFor();
});

check('a refusal is shown where it was asked for', async ({ api, open, page }) => {
  page.forgives = [/status of 400/];
  const name = unique('wrong');
  await fill(api, name, texts(2));
  await open(`queues/${name}`);
  await page.getByLabel('Selector').fill('parity ==');
  await page.getByLabel('Selector').press('Enter');
  await page.locator('.trouble code', { hasText: 'invalid-selector' }).waitFor();
  await page.getByLabel('Selector').fill('');
  await row(page, 'message 0').waitFor();
});

check('messages are read as text, JSON and bytes', async ({ api, open, page, shot }) => {
  const name = unique('read');
  await fill(api, name, [
    { contentType: 'application/json', correlationId: 'c-7', body: '{"order":7,"customer":"Łukasz"}', properties: { region: 'EU', n: 3 } },
    { contentType: 'text/plain', body: '<img src=x onerror=alert(1)>' },
    { contentType: 'application/octet-stream', bodyBase64: Buffer.from([0, 1, 2, 0xff, 0xfe, 65]).toString('base64') }]);
  await open(`queues/${name}`);
  await row(page, 'order').locator('[data-row]').click();
  const panel = page.getByRole('complementary');
  await panel.locator('pre.body', { hasText: '"order": 7,' }).waitFor();
  for (const fact of ['c-7', 'region', 'EU', 'application/json']) await panel.getByText(fact, { exact: true }).first().waitFor();
  await panel.getByRole('tab', { name: 'Bytes' }).click();
  await panel.locator('pre.body', { hasText: '00000000  7b 22 6f 72' }).waitFor();
  await panel.getByRole('tab', { name: 'Text' }).click();
  await panel.locator('pre.body', { hasText: '{"order":7,"customer":"Łukasz"}' }).waitFor();
  await panel.getByRole('button', { name: 'Copy' }).click();
  same(await page.evaluate(() => navigator.clipboard.readText()), '{"order":7,"customer":"Łukasz"}', 'clipboard');
  await shot();
  await row(page, 'onerror').locator('[data-row]').click();
  await panel.locator('pre.body', { hasText: '<img src=x' }).waitFor();
  same(await page.locator('pre.body img').count(), 0, 'markup in bodies stays text');
  await row(page, 'binary').locator('[data-row]').click();
  await panel.locator('pre.body', { hasText: '00 01 02 ff fe 41' }).waitFor();
  const [saved] = await Promise.all([page.waitForEvent('download'), panel.getByRole('button', { name: 'Save' }).click()]);
  holds(saved.suggestedFilename().startsWith('message-'), 'the body is saved as a file');
  holds(/[?&]message=\d+/.test(page.url()), 'the open message is in the address');
});

check('messages are found, moved, copied and deleted', async ({ api, open, page }) => {
  const name = unique('from');
  const to = unique('to');
  await fill(api, name, texts(12));
  await api('PUT', at(to));
  await open(`queues/${name}`);
  await page.getByLabel('Find text in bodies').fill('message 3');
  await until(async () => await page.locator('tbody tr').count() === 1, 'text finds one');
  await page.getByLabel('Find text in bodies').fill('');
  await page.getByLabel('Selector').fill("parity = 'odd'");
  await page.getByLabel('Selector').press('Enter');
  await until(async () => await page.locator('tbody tr').count() === 6, 'the selector finds six');
  await page.getByRole('button', { name: 'Copy', exact: true }).click();
  await page.getByRole('dialog').getByLabel('To').fill(`queue://${to}`);
  await page.getByRole('dialog').getByRole('button', { name: 'Copy', exact: true }).click();
  await note(page, '6 messages copied');
  await page.getByLabel('Selector').fill('');
  await until(async () => await page.locator('tbody tr').count() === 12, 'all are still there');
  await row(page, 'message 0').getByRole('checkbox').check();
  await row(page, 'message 4').getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Move 2' }).click();
  await page.getByRole('dialog').getByLabel('To').fill(`queue://${to}`);
  await page.getByRole('dialog').getByRole('button', { name: 'Move', exact: true }).click();
  await note(page, '2 messages moved');
  await until(async () => await page.locator('tbody tr').count() === 10, 'two are gone');
  same([await ready(api, name), await ready(api, to)], [10, 8], 'ready');
  await row(page, 'message 1').first().getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Delete 1' }).click();
  await confirm(page, 'Delete');
  await note(page, '1 message deleted');
  same(await ready(api, name), 9, 'ready');
  await row(page, 'message 2').locator('[data-row]').click();
  await page.getByRole('complementary').getByRole('button', { name: 'Delete' }).click();
  await confirm(page, 'Delete');
  await until(async () => await ready(api, name) === 8, 'one less');
  await page.getByLabel('All on this page').check();
  await page.getByRole('button', { name: 'Move 8' }).waitFor();
});

check('a queue is purged, paused and resumed', async ({ api, open, page }) => {
  const name = unique('purge');
  await fill(api, name, texts(4));
  await open(`queues/${name}`);
  await page.getByRole('button', { name: 'Pause' }).click();
  await confirm(page, 'Pause');
  await page.locator('.head .badge', { hasText: 'paused' }).waitFor();
  same((await api('GET', at(name))).paused, true, 'paused');
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.locator('.head .badge', { hasText: 'paused' }).waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Purge' }).click();
  await confirm(page, 'Purge');
  await note(page, '4 messages removed');
  await page.getByText('This queue is empty').waitFor();
  same(await ready(api, name), 0, 'ready');
});

check('a message is edited and sent again', async ({ api, open, page }) => {
  const name = unique('edit');
  await fill(api, name, [{ contentType: 'text/plain', body: 'with a tpyo', properties: { kept: 'yes' } }]);
  await open(`queues/${name}`);
  await row(page, 'tpyo').locator('[data-row]').click();
  await page.getByRole('button', { name: 'Edit and resend' }).click();
  await page.getByRole('dialog').getByLabel('Body').fill('without a typo');
  await page.getByRole('button', { name: 'Send and remove' }).click();
  await note(page, `Sent to queue://${name}`);
  await row(page, 'without a typo').waitFor();
  const { items } = await api('GET', `${at(name)}/messages`);
  same(items.map(({ body, properties }) => [body, properties?.kept]), [['without a typo', 'yes']], 'messages');
});

check('dead letters say why, and go back', async ({ api, open, page, shot }) => {
  const name = unique('dead');
  await fill(api, name, texts(4, 'letter'));
  const { messages } = await api('POST', `${at(name)}/pull?max=4`);
  for (const { lease } of messages) await api('POST', `/v1/leases/${encodeURIComponent(lease)}/reject`);
  const queues = (await until(async () => {
    const found = await api('GET', '/v1/dead-letters');
    return found.items.length && found;
  }, 'dead letters')).items.map(({ queue }) => queue);
  // Which of them ours are in is a matter of policy.
  const holding = [];
  for (const queue of queues) {
    const { items } = await api('GET', `${at(queue)}/messages`);
    if (items.some((one) => one.deadLetter?.originalDestination === `queue://${name}`)) holding.push(queue);
  }
  same(holding.length, 1, 'queues with our dead letters');
  await open('dead-letters');
  await page.getByRole('link', { name: holding[0], exact: true }).click();
  await row(page, 'letter 0').getByText('rejected').waitFor();
  await row(page, 'letter 0').getByText(`queue://${name}`).waitFor();
  await shot();
  await row(page, 'letter 0').getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Redrive 1' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Redrive', exact: true }).click();
  await note(page, /1 message sent back|Redrive begun/);
  await until(async () => await ready(api, name) === 1, 'one is back');
  for (const word of ['letter 1', 'letter 2', 'letter 3']) await row(page, word).getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Redrive 3' }).click();
  await page.getByLabel('At most per second').fill('50');
  await page.getByRole('dialog').getByRole('button', { name: 'Redrive', exact: true }).click();
  await until(async () => await ready(api, name) === 4, 'all are back');
});

check('a topic shows who listens, and is tailed live', async ({ api, open, page, shot }) => {
  const name = `${unique('tail')}.news`;
  await open(`tail?from=${encodeURIComponent(`topic://${name}`)}`);
  await page.getByRole('button', { name: 'Start' }).click();
  await page.getByRole('status').getByText('Live').waitFor();
  await api('POST', `/v1/topics/${name}/messages`, [{ contentType: 'application/json', body: '{"goal":1}' }, { contentType: 'text/plain', body: 'half time' }]);
  await page.locator('.tail li', { hasText: 'half time' }).waitFor();
  await page.locator('.tail li', { hasText: 'goal' }).getByRole('button').click();
  await page.locator('.tail pre.body', { hasText: '"goal": 1' }).waitFor();
  await shot();
  await page.getByRole('button', { name: 'Hold' }).click();
  await api('POST', `/v1/topics/${name}/messages`, { contentType: 'text/plain', body: 'held back' });
  await page.getByRole('button', { name: 'Go on (1 new)' }).click();
  await page.locator('.tail li', { hasText: 'held back' }).waitFor();
  await page.getByLabel('Show only messages with this text').fill('half');
  await until(async () => await page.locator('.tail > li').count() === 1, 'only what has the text');
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  const other = await page.context().newPage();
  await other.goto(page.url().replace(/#.*/, `#/topics/${name}`));
  await other.getByRole('heading', { name }).waitFor();
  await until(async () => await stat(other, 'Subscribers').textContent() === '1', 'one subscriber');
  await page.getByRole('button', { name: 'Stop' }).click();
  await until(async () => await stat(other, 'Subscribers').textContent() === '0' || other.getByText('There is no such topic').isVisible(), 'none any more');
  await other.close();
});

check('tailing a queue leaves its messages unless told otherwise', async ({ api, open, page }) => {
  const name = unique('look');
  await fill(api, name, texts(2));
  await open(`tail?on=1&from=${encodeURIComponent(`queue://${name}`)}`);
  await page.locator('.tail li', { hasText: 'message 1' }).waitFor();
  await api('POST', `${at(name)}/messages`, { contentType: 'text/plain', body: 'a late one' });
  await page.locator('.tail li', { hasText: 'a late one' }).waitFor();
  same(await page.locator('.tail > li').count(), 3, 'nothing is shown twice');
  same(await ready(api, name), 3, 'ready');
});

check('durable subscriptions are made and deleted', async ({ api, open, page }) => {
  const client = unique('client');
  await open('subscriptions');
  await page.getByRole('button', { name: 'New subscription' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Client id').fill(client);
  await dialog.getByLabel('Name').fill('alerts');
  await dialog.getByLabel('Topic').fill('alarm.>');
  await dialog.getByLabel('Selector').fill("level = 'high'");
  await dialog.getByRole('button', { name: 'Make it' }).click();
  await dialog.waitFor({ state: 'detached' });
  await page.getByLabel('Filter subscriptions').fill(client);
  await row(page, client).getByText('away').waitFor();
  await row(page, client).getByText("level = 'high'").waitFor();
  await page.getByRole('button', { name: `Delete alerts of ${client}` }).click();
  await confirm(page, 'Delete');
  await page.getByText('No subscription matches').waitFor();
  same((await api('GET', `/v1/subscriptions?filter=${client}`)).total, 0, 'subscriptions');
});

check('one message crosses STOMP, MQTT and JSON', async ({ open, page, shot }) => {
  await open('try');
  for (const label of ['STOMP', 'MQTT', 'JSON']) await page.getByRole('region', { name: label, exact: true }).getByText('connected', { exact: true }).waitFor();
  for (const label of ['STOMP', 'MQTT', 'JSON']) {
    const pane = page.getByRole('region', { name: label, exact: true });
    await pane.getByRole('textbox').fill(`a word from ${label}`);
    await pane.getByRole('button', { name: 'Send' }).click();
    const journey = page.locator('.journey.done', { hasText: `a word from ${label}` });
    await journey.waitFor();
    same(await journey.locator('.hop.got').count(), 3, `hops of ${label}`);
  }
  await page.getByRole('log', { name: /STOMP/ }).getByText('CONNECTED').first().waitFor();
  await page.getByRole('log', { name: /MQTT/ }).getByText('PUBLISH').first().waitFor();
  await page.getByRole('log', { name: /JSON/ }).getByText('"op":"message"').first().waitFor();
  await shot();
});

check('a connection is shown, and closed', async ({ api, open, page, begun }) => {
  const other = await begun();
  await other.open('try');
  await other.page.getByRole('region', { name: 'MQTT', exact: true }).getByText('connected', { exact: true }).waitFor();
  const { items } = await api('GET', '/v1/connections?filter=console-');
  const mine = items.find((one) => one.protocol.startsWith('MQTT'));
  await open(`connections?filter=${mine.clientId}`);
  await row(page, mine.clientId).locator('[data-row]').click();
  await page.getByRole('heading', { name: mine.clientId }).waitFor();
  await page.getByRole('button', { name: 'Close the connection' }).click();
  await confirm(page, 'Close it');
  await note(page, 'closed');
  await until(async () => (await api('GET', `/v1/connections?filter=${mine.clientId}`)).total === 0, 'it is gone');
  // The page that was cut off comes back by itself.
  await other.page.getByRole('region', { name: 'MQTT', exact: true }).getByText('connected', { exact: true }).waitFor();
});

check('routing is drawn, and can be walked through', async ({ api, open, page, begun, shot }) => {
  const other = await begun();
  await other.open('try');
  const pane = other.page.getByRole('region', { name: 'STOMP', exact: true });
  await pane.getByText('connected', { exact: true }).waitFor();
  await pane.getByRole('button', { name: 'Send' }).click();
  await other.page.locator('.journey.done').first().waitFor();
  const { nodes } = await api('GET', '/v1/routing');
  holds(nodes.length > 0, 'there is something to draw');
  await open('routing');
  await until(async () => await page.locator('.node').count() === nodes.length || await page.locator('.node').count() > 2, 'boxes');
  holds(await page.locator('.edge path').count() > 0, 'lines');
  await page.getByText('The same as a table').click();
  await page.getByRole('columnheader', { name: 'From' }).waitFor();
  await shot();
  await page.locator('.node.topic, .node.queue').first().focus();
  const label = await page.evaluate(() => document.activeElement.getAttribute('aria-label').replace(/^\w+ (?:\w+:\/\/)?/, ''));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: label, exact: true }).waitFor();
});

check('rules and policies are shown', async ({ api, open, page }) => {
  const rules = await api('GET', '/v1/rules');
  await open('rules');
  for (const heading of ['Composite destinations', 'Virtual topics', 'Mirrored queues', 'Policies']) await page.getByRole('heading', { name: heading, exact: true }).waitFor();
  for (const one of rules.composites) await page.getByText(one.name, { exact: true }).first().waitFor();
});

check('a message is published with headers and properties', async ({ api, open, page, shot }) => {
  const name = unique('pub');
  await open(`publish?to=${encodeURIComponent(`queue://${name}`)}`);
  await page.getByLabel('Content type').fill('application/json');
  await page.getByLabel('Body').fill('{"order":');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText('the body is no JSON').waitFor();
  await page.getByLabel('Body').fill('{"order": 12}');
  await page.getByLabel('Priority').selectOption('7');
  await page.getByLabel('Correlation id').fill('c-12');
  await page.getByRole('button', { name: 'Add a property' }).click();
  await page.getByLabel('Name of property 1').fill('region');
  await page.getByLabel('Value of property 1').fill('EU');
  await page.getByRole('button', { name: 'Send' }).click();
  await note(page, `1 message sent to queue://${name}`);
  await page.getByLabel('times').fill('5');
  await page.getByRole('button', { name: 'Send' }).click();
  await note(page, `5 messages sent to queue://${name}`);
  await shot();
  const { items, total } = await api('GET', `${at(name)}/messages`);
  same(items.length, total ?? 6, 'messages');
  const { priority, correlationId, contentType, properties, body } = items[0];
  same([priority, correlationId, contentType, properties.region], [7, 'c-12', 'application/json', 'EU'], 'headers');
  same(typeof body === 'string' ? JSON.parse(body) : body, { order: 12 }, 'body');
  await page.getByRole('button', { name: 'Copy as curl' }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  holds(command.startsWith('curl -H') && command.includes(`/v1/queues/${name}/messages`) && command.includes('"priority":7'), `the command: ${command}`);
  await page.getByRole('link', { name: `queue://${name}` }).first().click();
  await page.getByRole('heading', { name }).waitFor();
});

check('webhooks are offered when the broker has them', async ({ open, page }) => {
  page.forgives = [/404/];
  await page.route('**/v1/webhooks*', (route) => route.fulfill({ status: 404, contentType: 'application/problem+json', body: '{"code":"unsupported","detail":"no webhooks"}' }));
  await open('');
  await page.getByRole('link', { name: 'Webhooks' }).waitFor({ state: 'detached' });
  await page.unroute('**/v1/webhooks*');
  const there = await page.evaluate(() => fetch('/v1/webhooks', { headers: { 'x-requested-with': 'sabir-console' } }).then((response) => response.ok));
  if (!there) return 'this broker has none';
  await page.reload();
  await page.getByRole('link', { name: 'Webhooks' }).click();
  const name = unique('hook');
  await page.getByRole('button', { name: 'New webhook' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Name').fill(name);
  await dialog.getByLabel('From').fill('queue://hooked');
  await dialog.getByLabel('Address').fill('https://example.invalid/hook');
  await dialog.getByRole('button', { name: 'Make it' }).click();
  await row(page, name).getByText('https://example.invalid/hook').waitFor();
  await page.getByRole('button', { name: `Delete ${name}` }).click();
  await confirm(page, 'Delete');
  await row(page, name).waitFor({ state: 'detached' });
  return undefined;
});

check('light and dark follow the machine until somebody chooses', async ({ open, page }) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await open('');
  const light = await ground();
  await page.emulateMedia({ colorScheme: 'dark' });
  await until(async () => await ground() !== light, 'it gets dark');
  await page.getByRole('button', { name: /^Colours/ }).click();
  await until(async () => await ground() === light, 'light was chosen');
  await page.reload();
  await page.locator('main h1').waitFor();
  same(await ground(), light, 'the choice is kept');
});

check('a phone has the pages in a menu', async ({ open, page, shot }) => {
  await open('');
  const menu = page.getByRole('button', { name: 'Menu' });
  same(await page.getByRole('link', { name: 'Dead letters' }).isVisible(), false, 'the menu is away');
  await menu.tap();
  await page.getByRole('link', { name: 'Dead letters' }).waitFor();
  await shot();
  await page.getByRole('link', { name: 'Queues', exact: true }).first().tap();
  await page.getByRole('heading', { name: 'Queues' }).waitFor();
  await until(async () => !await page.getByRole('link', { name: 'Subscriptions', exact: true }).isVisible(), 'the menu has closed');
}, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });

check('nothing is asked while nobody looks', async ({ page, url }) => {
  await page.clock.install();
  await page.goto(`${url}/#/queues`);
  await page.locator('tbody tr').first().waitFor();
  const look = (hidden) => page.evaluate((is) => {
    Object.defineProperty(document, 'hidden', { value: is, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await look(true);
  // Whatever was under way ends first.
  await page.waitForLoadState('networkidle');
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  await page.clock.runFor(60_000);
  same(asked, [], 'requests of a hidden tab');
  await look(false);
  await until(() => asked.some((one) => one.includes('/v1/queues')), 'it asks at once');
});

check('a login is asked for, checked and ended', async ({ begun }) => {
  const guarded = await mock({ queues: 10, user: 'alice:wonder' });
  try {
    const { page, url, shot } = await begun({}, guarded.url);
    page.forgives = [/status of 401/];
    await page.goto(`${url}/#/queues`);
    await page.getByLabel('User').fill('alice');
    await page.getByLabel('Password').fill('blunder');
    await page.keyboard.press('Enter');
    await page.getByText('User or password is wrong.').waitFor();
    await shot();
    same(await page.evaluate(() => document.cookie), '', 'no script sees a cookie');
    await page.getByLabel('Password').fill('wonder');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Queues' }).waitFor();
    await page.getByText('alice', { exact: true }).waitFor();
    same(await page.evaluate(() => document.cookie), '', 'no script sees the cookie');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByLabel('Password').waitFor();
  } finally {
    await guarded.close();
  }
});

check('a broker that is killed and started again is found again', async ({ api, open, page, target, begun, shot }) => {
  if (!target.kill) return 'this broker is not ours to kill';
  const forgives = [/ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED|WebSocket connection/];
  const name = unique('again');
  const tail = await begun();
  tail.page.forgives = forgives;
  page.forgives = forgives;
  await tail.open(`tail?on=1&from=${encodeURIComponent(`topic://${name}`)}`);
  await tail.page.getByRole('status').getByText('Live').waitFor();
  await open('queues');
  const list = page.locator('tbody tr').first().or(page.getByText('No queues yet'));
  await list.waitFor();
  await target.kill();
  try {
    await page.locator('.lost').waitFor();
    holds(await list.isVisible(), 'the last answer is still shown');
    await shot();
    await tail.page.getByText('Connection lost, trying again').waitFor();
  } finally {
    await target.start();
  }
  await page.locator('.lost').waitFor({ state: 'detached' });
  await tail.page.getByRole('status').getByText('Live').waitFor();
  await api('POST', `/v1/topics/${name}/messages`, { contentType: 'text/plain', body: 'back again' });
  await tail.page.locator('.tail li', { hasText: 'back again' }).waitFor();
  return undefined;
});

check('the API can be read and copied', async ({ page, url, shot }) => {
  await page.goto(`${url}/docs`);
  await page.getByRole('heading', { name: 'Sabir API' }).waitFor();
  await page.getByLabel('Find a call').fill('metrics');
  await page.locator('.op code', { hasText: '/metrics' }).waitFor();
  const op = page.locator('.op', { hasText: '/metrics' }).first();
  await op.getByRole('button', { name: 'Copy' }).click();
  same(await page.evaluate(() => navigator.clipboard.readText()), `curl '${url}/metrics'`, 'clipboard');
  await page.getByLabel('Find a call').fill('');
  same(await page.evaluate(audit), [], 'complaints');
  await shot();
});

check('files come with a strict policy and are asked for again', async ({ target }) => {
  const page = await fetch(`${target.url}/`, { headers: { accept: 'text/html' } });
  const policy = page.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) holds(policy?.includes(part), `${part} in ${policy}`);
  holds(!/unsafe|https?:|\*/.test(policy), `nothing loose in ${policy}`);
  same(page.headers.get('x-content-type-options'), 'nosniff', 'sniffing');
  const file = await fetch(`${target.url}/console/app.js`);
  same(file.headers.get('cache-control'), 'no-cache', 'cache');
  const tag = file.headers.get('etag');
  if (target.kind === 'mock') return undefined;
  same((await fetch(`${target.url}/console/app.js`, { headers: { 'if-none-match': tag } })).status, 304, 'known tag');
  same((await fetch(`${target.url}/console/nothing.js`)).status, 404, 'unknown file');
  return undefined;
});
