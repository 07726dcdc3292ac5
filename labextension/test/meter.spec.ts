import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { Front, SessionModel } from '../src/model';
import { DEFAULTS } from '../src/settings';
import type { INbllm } from '../src/tokens';
import { Meter } from '../src/views/meter';
import { budget, delta, numbers, snapshot } from './states';

function shown() {
  const front = new Front();
  const model = new SessionModel();
  const settingsChanged = new Signal<unknown, void>({});
  const nbllm = { front, settings: { ...DEFAULTS }, settingsChanged };
  const open = jest.fn();
  const meter = new Meter(nbllm as unknown as INbllm, open);
  Widget.attach(meter, document.body);
  const button = meter.node.querySelector('button')!;
  return { front, model, nbllm, open, meter, button, settingsChanged };
}

const frame = () => {
  jest.advanceTimersByTime(20);
};

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

it('shows nothing for a kernel without nbllm, and says when that changes', () => {
  const { front, model, meter } = shown();
  const changes: boolean[] = [];
  meter.activeChanged.connect(() => changes.push(meter.isActive));
  front.session = model;
  frame();
  expect(meter.isActive).toBe(false);
  model.attach({ send: () => {} });
  model.receive(snapshot());
  frame();
  model.detach();
  frame();
  expect(changes).toEqual([true, false]);
});

it('draws once per frame, however many messages come, and only what differs', () => {
  const { front, model, button } = shown();
  front.session = model;
  model.attach({ send: () => {} });
  model.receive(snapshot());
  frame();
  const text = button.lastElementChild!;
  const writes = jest.spyOn(text, 'textContent', 'set');
  for (let seq = 1; seq <= 50; seq += 1) {
    model.receive(delta(seq, { session: numbers({ cost_usd: `1.${10 + seq}` }) }));
  }
  frame();
  expect(writes).toHaveBeenCalledTimes(1);
  expect(button.textContent).toBe('$1.60');
  model.receive(delta(51, { endpoints: [] }));
  frame();
  expect(writes).toHaveBeenCalledTimes(1);
});

it('says its warning in words too, for who sees neither colour nor symbol', () => {
  const { front, model, meter, button } = shown();
  front.session = model;
  model.attach({ send: () => {} });
  model.receive(snapshot({ budgets: [budget({ level: 'hard', spent_usd: '5' })] }));
  frame();
  expect(meter.node.dataset.alarm).toBe('hard');
  expect(button.querySelector('[aria-hidden=true]')?.textContent).toBe('■');
  expect(button.getAttribute('aria-label')).toMatch(/^nbllm: .* Hard limit reached: session/);
  expect(button.title).toContain('Further calls are refused.');
  model.receive(delta(1, { budgets: [budget()] }));
  frame();
  expect(meter.node.dataset.alarm).toBe('none');
  expect(button.querySelector('[aria-hidden=true]')?.textContent).toBe('');
});

it('follows the settings', () => {
  const { front, model, nbllm, button, settingsChanged } = shown();
  front.session = model;
  model.attach({ send: () => {} });
  model.receive(snapshot({ session: numbers({ cost_usd: '0.43219' }), today: { cost_usd: null, calls: 0 } }));
  frame();
  expect(button.textContent).toBe('$0.43');
  nbllm.settings.currencyDecimals = 4;
  settingsChanged.emit();
  frame();
  expect(button.textContent).toBe('$0.4322');
});

it('is a button that opens the panel', () => {
  const { button, open } = shown();
  button.click();
  expect(open).toHaveBeenCalledTimes(1);
  expect(button.type).toBe('button');
});

it('shows hostile names as text', () => {
  const { front, model, button } = shown();
  front.session = model;
  model.attach({ send: () => {} });
  const scope = 'feature:<img src=x onerror=alert(1)>';
  model.receive(snapshot({ budgets: [budget({ scope, level: 'soft' })] }));
  frame();
  expect(button.querySelector('img')).toBeNull();
  expect(button.title).toContain(scope);
});

it('draws no more once it is gone', () => {
  const { front, model, meter } = shown();
  front.session = model;
  meter.dispose();
  model.attach({ send: () => {} });
  model.receive(snapshot());
  frame();
  expect(meter.isActive).toBe(false);
});
