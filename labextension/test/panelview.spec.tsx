/** The panel as it is drawn: what it says in each state, what its buttons do, and that all text stays text. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { act } from 'react';
import type { Answer } from '../src/model';
import type { Snapshot } from '../src/protocol';
import { fromKernelMessage } from '../src/protocol';
import { DEFAULTS } from '../src/settings';
import { PanelView } from '../src/views/panelview';
import { click, deeds, draw, enter, facts, find, press, texts } from './drawing';
import { budget, call, endpoint, numbers, running, state } from './states';

const HOSTILE = '<img src=x onerror=alert(1)><script>alert(1)</script>';

/** Without numbers the panel says why and what to do. */
describe('an empty panel', () => {
  it.each([
    ['no notebook', { title: null, kernel: null }, 'Open a notebook', null],
    ['no kernel', { kernel: null }, 'There is no kernel', '%load_ext nbllm'],
    ['a dead kernel', { kernel: 'dead' }, 'There is no kernel', '%load_ext nbllm'],
    ['a restarting kernel', { kernel: 'autorestarting' }, 'restarting', '%load_ext nbllm'],
    ['a starting kernel', { kernel: 'starting' }, 'starting', '%load_ext nbllm'],
    ['no nbllm', {}, 'has not loaded nbllm', '%load_ext nbllm'],
    ['no answer yet', { phase: 'waiting' as const, kernel: 'busy' }, 'Waiting for the kernel', null]
  ])('%s', (_, some, words, code) => {
    const { node } = draw(
      <PanelView facts={facts({ state: null, phase: 'none', ...some })} deeds={deeds()} />
    );
    expect(node.textContent).toContain(words);
    expect(node.querySelector('pre')?.textContent ?? null).toBe(code);
    expect(node.querySelector('section')).toBeNull();
  });

  it('copies what is to be run', async () => {
    const copied: string[] = [];
    const copy = (text: string) => copied.push(text);
    const { node } = draw(
      <PanelView facts={facts({ state: null, phase: 'none' })} deeds={deeds({ copy })} />
    );
    await click(node, '.jp-nbllm-Note button');
    expect(copied).toEqual(['%load_ext nbllm']);
  });

  it('has an example where no call was made, and says that nothing runs', () => {
    const { node } = draw(<PanelView facts={facts()} deeds={deeds()} />);
    expect(find(node, '[data-section=calls] pre').textContent).toMatch(/^%%llm /);
    expect(find(node, '[data-section=running]').textContent).toContain('Nothing is running.');
    expect(find(node, '[data-section=endpoints]').textContent).toContain('No endpoint');
  });
});

/** Numbers that are not true any more are marked. */
test('a lost connection is said above the last numbers', () => {
  const { node } = draw(<PanelView facts={facts({ phase: 'lost' })} deeds={deeds()} />);
  expect(find(node, '[role=status]').textContent).toContain('last numbers');
  expect(find(node, '.jp-nbllm-Cost-amount').textContent).toBe('$0.43');
});

/** The settings say which sections there are, and in which order. */
test('sections follow the settings and fold', async () => {
  const folded: unknown[] = [];
  const fold = (...what: unknown[]) => folded.push(what);
  const settings = { ...DEFAULTS, sections: ['calls', 'session'] as const };
  const { node, again } = draw(<PanelView facts={facts({ settings })} deeds={deeds({ fold })} />);
  expect(texts(node, '.jp-nbllm-Part-name')).toEqual(['Calls', 'Session']);
  await click(node, '[data-section=session] button');
  expect(folded).toEqual([['session', true]]);
  again(<PanelView facts={facts({ settings, folded: ['session'] })} deeds={deeds({ fold })} />);
  const button = find(node, '[data-section=session] button');
  expect(button.getAttribute('aria-expanded')).toBe('false');
  expect(find(node, '[data-section=session] .jp-nbllm-Part-content').hidden).toBe(true);
  again(<PanelView facts={facts({ settings: { ...DEFAULTS, sections: [] } })} deeds={deeds()} />);
  expect(node.textContent).toContain('All sections are switched off');
});

/** Cost, day, tokens, hits and budgets are there in words. */
test('the session', () => {
  const full = state({
    session: numbers({ simulated_usd: '0.1', failed: 2, latency_s: [0.5, 2, 1] }),
    budgets: [
      budget({ level: 'soft', spent_usd: '4.5' }),
      budget({ scope: 'day', level: 'hard', spent_usd: '9', hard_usd: '9', soft_usd: null }),
      budget({ scope: 'feature:a:b', hard_usd: null, soft_usd: null })
    ],
    cache_mode: 'refresh'
  });
  const { node } = draw(<PanelView facts={facts({ state: full })} deeds={deeds()} />);
  const words = find(node, '[data-section=session]').textContent;
  for (const word of [
    '$0.43',
    'today $0.43',
    '$0.10 of it simulated',
    '10.4k in · 2k out',
    '12 · 2 failed',
    '3 · $0.03 saved',
    'refresh',
    'Soft limit of $4.00 reached',
    'Limit reached: further calls are refused',
    'a:b$0.43',
    'median 1.0 s'
  ]) {
    expect(words).toContain(word);
  }
  const meters = [...node.querySelectorAll('[role=meter]')];
  expect(meters.map(one => one.getAttribute('aria-valuenow'))).toEqual(['90', '100']);
  expect(meters[1]?.getAttribute('aria-valuetext')).toContain('refused');
  expect(find(node, '[role=img]').getAttribute('aria-label')).toContain('longest 2.0 s');
});

/** Stop says that it is under way, and why it could not. */
test('the Stop button', async () => {
  const answers = new Map<string, (answer: Answer) => void>();
  const stop = (callId: string) => new Promise<Answer>(resolve => answers.set(callId, resolve));
  const full = state({
    running: [running({ call_id: 'a' }), running({ call_id: 'b', stoppable: false, cell_id: null })]
  });
  const { node } = draw(<PanelView facts={facts({ state: full })} deeds={deeds({ stop })} />);
  const rows = [...node.querySelectorAll<HTMLElement>('.jp-nbllm-Running > li')];
  const [first, second] = rows.map(row => find(row, '.jp-nbllm-Stop') as HTMLButtonElement);
  expect(second?.disabled).toBe(true);
  expect(rows[1]?.textContent).toContain('before this page listened, or in another process');
  expect(rows[1]?.textContent).toContain('interrupt the kernel');
  await click(rows[0]!, '.jp-nbllm-Stop');
  expect(first?.textContent).toBe('Stopping…');
  expect(first?.disabled).toBe(true);
  await act(async () => {
    answers.get('a')?.({ ok: false, message: 'It waits for another process.', data: null });
    await Promise.resolve();
  });
  expect(first?.disabled).toBe(false);
  expect(find(rows[0]!, '[role=status]').textContent).toBe('It waits for another process.');
  expect(first?.getAttribute('aria-describedby')).toBe(find(rows[0]!, '[role=status]').id);
});

/** A kernel that cannot be heard is not asked to stop anything. */
test('nothing can be stopped while the connection is lost', () => {
  const full = state({ running: [running()] });
  const { node } = draw(<PanelView facts={facts({ state: full, phase: 'lost' })} deeds={deeds()} />);
  expect((find(node, '.jp-nbllm-Stop') as HTMLButtonElement).disabled).toBe(true);
});

/** The cell of a running call is a click away. */
test('a running call shows its cell', async () => {
  const jumps: unknown[] = [];
  const jump = (...where: unknown[]) => jumps.push(where);
  const full = state({ running: [running({ notebook: 'ab' })] });
  const { node } = draw(<PanelView facts={facts({ state: full })} deeds={deeds({ jump })} />);
  await click(node, '.jp-nbllm-place');
  expect(jumps).toEqual([['cell-1', 'ab']]);
});

/** Light and words of an endpoint say the same. */
test('endpoints', () => {
  const full = state({
    endpoints: [
      endpoint({
        name: 'lab',
        models: [
          { model: 'a', breaker: 'open' },
          { model: 'b', breaker: 'half open' },
          { model: 'c', breaker: 'off' }
        ],
        error_rate: 0.25,
        attempts: 8,
        requests_left: 1,
        tokens_left: 90_000,
        engine: { state: 'wedged', running: 2, waiting: null }
      }),
      endpoint()
    ]
  });
  const { node } = draw(<PanelView facts={facts({ state: full })} deeds={deeds()} />);
  expect(texts(node, '.jp-nbllm-Endpoint-breaker')).toEqual(['breaker open', 'half open', 'off', 'ok']);
  const marks = [...node.querySelectorAll('.jp-nbllm-Endpoint-model svg')];
  expect(marks.map(mark => mark.getAttribute('data-mark'))).toEqual(['open', 'half open', 'off', 'closed']);
  const words = find(node, '[data-section=endpoints]').textContent;
  expect(words).toContain('1 breaker open');
  expect(words).toContain('25% of 8 failed');
  expect(words).toContain('1 request · 90k tokens');
  expect(words).toContain('wedged · 2 running');
});

/** A click unfolds why and shows the cell; the arrow keys walk, and unfold without leaving the list. */
test('a call is unfolded by mouse and by keys', async () => {
  const jumps: unknown[] = [];
  const asked: string[] = [];
  const why = (callId: string) => {
    asked.push(callId);
    return Promise.resolve({ ok: true, message: '', data: { text: `Because ${HOSTILE}` } });
  };
  const own = deeds({ why, jump: (...where) => jumps.push(where) });
  const calls = [
    call({ call_id: 'c2', error: 'Timed out', status: 'failed', source: null }),
    call({ call_id: 'c1' })
  ];
  const { node } = draw(<PanelView facts={facts({ state: state({ calls }) })} deeds={own} />);
  await click(node, '[data-call=c2]');
  expect(asked).toEqual(['c2']);
  const titles = [...node.querySelectorAll('[data-call]')].map(row => row.getAttribute('title'));
  expect(titles).toEqual(['Failed: Timed out', null]);
  expect(jumps).toEqual([['cell-1', null]]);
  const unfolded = find(node, '.jp-nbllm-Why');
  expect(unfolded.textContent).toContain(`Because ${HOSTILE}`);
  expect(unfolded.textContent).toContain('Timed out');
  expect(unfolded.querySelector('img, script')).toBeNull();
  await click(node, '[data-call=c2]');
  expect(node.querySelector('.jp-nbllm-Why')).toBeNull();

  const rows = [...node.querySelectorAll<HTMLElement>('[data-call]')];
  expect(rows.map(row => row.tabIndex)).toEqual([0, -1]);
  rows[0]?.focus();
  await press(rows[0]!, 'ArrowDown');
  expect(document.activeElement).toBe(rows[1]);
  expect(rows.map(row => row.tabIndex)).toEqual([-1, 0]);
  await press(rows[1]!, 'ArrowRight');
  expect(rows[1]?.getAttribute('aria-expanded')).toBe('true');
  expect(asked).toEqual(['c2', 'c1']);
  await press(rows[1]!, 'ArrowLeft');
  expect(rows[1]?.getAttribute('aria-expanded')).toBe('false');
  await press(rows[1]!, 'Home');
  expect(document.activeElement).toBe(rows[0]);
  expect(jumps).toHaveLength(1);
});

/** Why could not be learned is said; asked again, it is asked again. */
test('a why that failed is said and not kept', async () => {
  let asked = 0;
  const why = () => {
    asked += 1;
    return Promise.resolve({ ok: false, message: 'The kernel is busy.', data: null });
  };
  const full = state({ calls: [call({ call_id: 'c1' })] });
  const { node } = draw(<PanelView facts={facts({ state: full })} deeds={deeds({ why })} />);
  for (const times of [1, 2]) {
    await click(node, '[data-call=c1]');
    expect(find(node, '.jp-nbllm-Why pre').textContent).toBe('The kernel is busy.');
    expect(asked).toBe(times);
    await click(node, '[data-call=c1]');
  }
});

/** A notebook lists its own calls, and on request all of its kernel; a filter finds words in them. */
test('scope and filter', async () => {
  const [own, other] = ['0'.repeat(16), 'f'.repeat(16)];
  const calls = [
    call({ call_id: 'a', notebook: own, feature: 'summaries' }),
    call({ call_id: 'b', notebook: own, status: 'failed', source: null, error: 'Refused' }),
    call({ call_id: 'c', notebook: other, cell_id: 'elsewhere' })
  ];
  const shown = facts({ state: state({ calls }), notebook: own });
  const { node, again } = draw(<PanelView facts={shown} deeds={deeds()} />);
  const ids = () => [...node.querySelectorAll<HTMLElement>('[data-call]')].map(row => row.dataset.call);
  expect(ids()).toEqual(['a', 'b']);
  await enter(node, 'select', 'kernel');
  expect(ids()).toEqual(['a', 'b', 'c']);
  expect(texts(node, '.jp-nbllm-Call-cell')).toEqual(['Cell', '[3]', '[3]', 'other']);
  await enter(node, 'input', 'REFUSED  failed');
  expect(ids()).toEqual(['b']);
  expect(find(node, '.jp-nbllm-Calls-found').textContent).toBe('1 of 3');
  await enter(node, 'input', 'nowhere');
  expect(node.textContent).toContain('No call matches the filter.');
  await press(find(node, 'input'), 'Escape');
  expect(ids()).toHaveLength(3);
  again(<PanelView facts={{ ...shown, settings: { ...DEFAULTS, callsShown: 10 } }} deeds={deeds()} />);
  await enter(node, 'select', 'notebook');
  again(<PanelView facts={{ ...shown, notebook: 'a'.repeat(16) }} deeds={deeds()} />);
  expect(node.textContent).toContain('choose “This kernel”');
});

/** Every field of every message that a kernel may send is drawn as text. */
test('hostile names stay text', async () => {
  const folder = join(__dirname, '..', '..', 'tests', 'data', 'lab_protocol');
  const fixture = JSON.parse(readFileSync(join(folder, 'snapshot_hostile_strings.json'), 'utf-8')) as {
    message: unknown;
  };
  const { state: hostile } = fromKernelMessage(fixture.message) as Snapshot;
  const alert = jest.spyOn(window, 'alert').mockImplementation(() => {});
  const { node } = draw(<PanelView facts={facts({ state: hostile, title: HOSTILE })} deeds={deeds()} />);
  await click(node, '[data-call]');
  expect(node.querySelector('img, script, iframe, a, [onerror]')).toBeNull();
  expect(node.textContent).toContain('<script>alert(1)</script>');
  expect(alert).not.toHaveBeenCalled();
});
