/** What is said in one place does not contradict what is said in another. */
import { mark } from '../src/badge';
import { DEFAULTS } from '../src/settings';
import { summarise } from '../src/summary';
import { PanelView } from '../src/views/panelview';
import { deeds, draw, facts, find } from './drawing';
import { badge, call, numbers, running, state } from './states';

/** What is under way is not denied. */
test('the list of calls while the first one runs', () => {
  const first = state({ running: [running()] });
  const { node, again } = draw(<PanelView facts={facts({ state: first })} deeds={deeds()} />);
  const calls = () => find(node, '[data-section=calls] .jp-nbllm-Part-content').textContent;
  expect(calls()).toBe('The first call is under way. It is listed here when it ends.');
  const others = {
    calls: [call({ notebook: 'b'.repeat(16) })],
    running: [running({ notebook: 'a'.repeat(16) })]
  };
  again(<PanelView facts={facts({ state: state(others), notebook: 'a'.repeat(16) })} deeds={deeds()} />);
  expect(calls()).toContain('The first call is under way.');
  again(<PanelView facts={facts({ state: state(others), notebook: 'c'.repeat(16) })} deeds={deeds()} />);
  expect(calls()).toContain('No calls of this notebook. Its kernel has 1');
  const crowd = state({ session: numbers({ running: 900 }) });
  again(<PanelView facts={facts({ state: crowd })} deeds={deeds()} />);
  expect(calls()).toContain('under way');
  again(<PanelView facts={facts({ state: state() })} deeds={deeds()} />);
  expect(calls()).toContain('No calls yet.');
});

/** One amount, one text: in the status bar, the panel and the badge, as the kernel writes it below the answer. */
test('a small amount is written alike everywhere', () => {
  const cost = { cost_usd: '0.000075' };
  const now = state({ session: numbers(cost), today: { ...cost, calls: 1 }, calls: [call(cost)] });
  const { node } = draw(<PanelView facts={facts({ state: now })} deeds={deeds()} />);
  const text = '$0.000075';
  expect(find(node, '.jp-nbllm-Cost-amount').textContent).toBe(text);
  expect(find(node, '.jp-nbllm-Cost-today').textContent).toBe(`today ${text}`);
  expect(find(node, '[data-call] .jp-nbllm-Call-cost').textContent).toBe(text);
  expect(summarise({ phase: 'live', state: now }, DEFAULTS)?.text).toBe(text);
  expect(mark([badge(cost)], DEFAULTS.currencyDecimals)?.text).toBe(text);
});
