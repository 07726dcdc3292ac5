import { DEFAULTS } from '../src/settings';
import type { Phase } from '../src/model';
import type { State } from '../src/protocol';
import { summarise } from '../src/summary';
import { budget, endpoint, numbers, running, state } from './states';

const read = (some: Partial<State> = {}, phase: Phase = 'live') =>
  summarise({ phase, state: state(some) }, DEFAULTS);
const text = (some: Partial<State> = {}) => read(some)?.text.replaceAll('\u00a0', ' ');

describe('the line in the status bar', () => {
  it('is not there without nbllm', () => {
    expect(summarise(null, DEFAULTS)).toBeNull();
    expect(summarise({ phase: 'waiting', state: null }, DEFAULTS)).toBeNull();
    expect(summarise({ phase: 'none', state: null }, DEFAULTS)).toBeNull();
  });

  it('has cost, limit, tokens and speed while an answer streams', () => {
    const session = numbers({ running: 1, tokens_per_s: 84.2, input_tokens: 10_304, output_tokens: 2_000 });
    expect(text({ session, budgets: [budget()], running: [running()] })).toBe(
      '$0.43 of $5.00 · 12.4k tokens · 84 tok/s'
    );
  });

  it('leaves out a speed that is not known yet', () => {
    expect(text({ running: [running({ output_tokens: 0, ttft_s: null })] })).toBe('$0.43 · 12.4k tokens');
  });

  it('is quiet at rest', () => {
    expect(text({ budgets: [budget()] })).toBe('$0.43 of $5.00');
    expect(text({ session: numbers({ tokens_per_s: 84 }) })).toBe('$0.43');
  });

  it('shows the day beside a session that began anew, so that nothing hides', () => {
    const session = numbers({ cost_usd: '0.00' });
    expect(text({ session, today: { cost_usd: '1.25', calls: 40 } })).toBe('$0.00 · today $1.25');
    expect(text({ session, today: { cost_usd: null, calls: 40 } })).toBe('$0.00');
  });

  it('leaves out a day that has not caught up with the session', () => {
    expect(text({ today: { cost_usd: '0.41', calls: 11 } })).toBe('$0.43');
  });

  it('takes the limit of the session, not that of a day or a feature', () => {
    const budgets = [budget({ scope: 'day', hard_usd: '50' }), budget({ scope: 'feature:x', hard_usd: '1' })];
    expect(text({ budgets })).toBe('$0.43');
    expect(text({ budgets: [...budgets, budget()] })).toBe('$0.43 of $5.00');
    expect(text({ budgets: [budget({ hard_usd: null })] })).toBe('$0.43');
  });

  it('names a cost that is not known', () => {
    expect(text({ session: numbers({ cost_known: false }) })).toBe('$0.43 + unknown');
  });
});

describe('alarms', () => {
  const open = endpoint({ name: 'lab', models: [{ model: 'lab/qwen', breaker: 'open' }] });

  it('are silent when all is well', () => {
    expect(read({ budgets: [budget()], endpoints: [endpoint()] })).toMatchObject({
      alarm: null,
      warning: ''
    });
  });

  it('say which soft limit is reached', () => {
    const summary = read({ budgets: [budget({ level: 'soft', spent_usd: '4.10' })] });
    expect(summary).toMatchObject({ alarm: 'soft', warning: 'Soft limit reached: session $4.10 of $4.00.' });
  });

  it('say which hard limit is reached and what follows', () => {
    const summary = read({ budgets: [budget({ scope: 'feature:x', level: 'hard', spent_usd: '5' })] });
    expect(summary?.alarm).toBe('hard');
    expect(summary?.warning).toBe('Hard limit reached: feature:x $5.00 of $5.00. Further calls are refused.');
  });

  it('name the model whose breaker is open, once, with its endpoint', () => {
    expect(read({ endpoints: [open] })?.warning).toBe('Not asked for a while after failures: lab/qwen.');
    const bare = endpoint({ name: 'lab', models: [{ model: 'qwen', breaker: 'open' }] });
    expect(read({ endpoints: [bare] })?.warning).toContain('lab/qwen');
  });

  it.each(['closed', 'half open', 'off'] as const)('do not ring for a breaker that is %s', breaker => {
    expect(read({ endpoints: [endpoint({ models: [{ model: 'large', breaker }] })] })?.alarm).toBeNull();
  });

  it('show the gravest and say all', () => {
    const budgets = [budget({ level: 'soft' }), budget({ scope: 'day', level: 'hard' })];
    const summary = read({ budgets, endpoints: [open] }, 'lost');
    expect(summary?.alarm).toBe('hard');
    expect(summary?.warning).toMatch(/Hard limit.*Not asked.*Soft limit.*cannot be reached/);
    expect(read({ budgets: [budget({ level: 'soft' })], endpoints: [open] })?.alarm).toBe('breaker');
    expect(read({}, 'lost')?.alarm).toBe('lost');
  });
});

it('the title has the whole story, simulated dollars and today named', () => {
  const session = numbers({ simulated_usd: '0.43', failed: 2 });
  const title = read({ session, today: { cost_usd: '1.25', calls: 1 } })?.title ?? '';
  expect(title).toContain('$0.43, $0.43 of it simulated, 12 calls, 3 from the cache, $0.03 saved, 2 failed');
  expect(title).toContain('tokens: 10.4k in, 2k out');
  expect(title).toContain('Today (UTC), all kernels: $1.25, 1 call.');
});
