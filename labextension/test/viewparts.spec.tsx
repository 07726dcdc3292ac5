/** What the views reckon: shares, curves, clocks, words. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Widget } from '@lumino/widgets';
import * as fc from 'fast-check';
import { arranged, scopeWords, shares, warningOf } from '../src/views/budgets';
import type { Budget } from '../src/protocol';
import {
  decimalsOf,
  isOf,
  listed,
  missingDigits,
  outcome,
  outcomeTitle,
  placeOf,
  when
} from '../src/views/calllist';
import { BREAKERS, engineWords, errorWords, roomWords } from '../src/views/endpoints';
import { asideOf } from '../src/views/panelview';
import { placesOf, same } from '../src/views/places';
import { begunAt, elapsedWords, progressWords } from '../src/views/running';
import { simulatedWords } from '../src/views/session';
import { curve, median } from '../src/views/sparkline';
import { budget, call, endpoint, numbers, running, state } from './states';

const money = fc
  .bigInt({ min: 0n, max: 10n ** 9n })
  .map(cents => `${cents / 100n}.${String(cents % 100n).padStart(2, '0')}`);

/** A bar is never longer than its room, whatever was spent, held and allowed. */
test('the parts of a bar fit into it', () => {
  fc.assert(
    fc.property(
      money,
      money,
      fc.option(money),
      fc.option(money),
      (spent_usd, reserved_usd, hard_usd, soft_usd) => {
        const { spent, reserved, soft } = shares(budget({ spent_usd, reserved_usd, hard_usd, soft_usd }));
        expect(spent).toBeGreaterThanOrEqual(0);
        expect(reserved).toBeGreaterThanOrEqual(0);
        expect(spent + reserved).toBeLessThanOrEqual(1);
        expect(soft === null || (soft >= 0 && soft < 1)).toBe(true);
      }
    )
  );
});

/** A limit of 0 is a full bar, not a division by it; without a hard limit the soft one is the bar. */
test('limits of 0, and soft ones alone', () => {
  expect(shares(budget({ hard_usd: '0', soft_usd: null, spent_usd: '0' }))).toEqual({
    spent: 1,
    reserved: 0,
    soft: null
  });
  const soft: Partial<Budget> = { hard_usd: null, soft_usd: '2', spent_usd: '1' };
  expect(shares(budget(soft))).toEqual({ spent: 0.5, reserved: 0, soft: null });
});

/** Of a hundred budgets a few are in sight, and all that warn. */
test('many budgets', () => {
  const many = Array.from({ length: 50 }, (_, index) => budget({ scope: `feature:${index}` }));
  many[40] = budget({ scope: 'feature:40', level: 'hard' });
  const free = Array.from({ length: 50 }, (_, index) =>
    budget({ scope: `user:${index}`, hard_usd: null, soft_usd: null })
  );
  const session = budget({ hard_usd: null, soft_usd: null });
  const { bars, rows, more } = arranged([session, ...many, ...free]);
  expect(bars.map(({ scope }) => scope.slice(8))).toEqual(['0', '1', '2', '3', '4', '5', '40']);
  expect(rows).toHaveLength(6);
  expect(bars.length + rows.length + more.length).toBe(100);
});

/** Levels and scopes have words. */
test('words of budgets', () => {
  expect(warningOf(budget(), 4)).toBe('');
  expect(warningOf(budget({ level: 'soft' }), 4)).toBe('Soft limit of $4.00 reached.');
  expect(warningOf(budget({ level: 'hard' }), 4)).toContain('refused');
  expect(['session', 'day', 'feature:x:y', 'user:eve', 'feature'].map(scopeWords)).toEqual([
    'Session',
    'Today (UTC)',
    'x:y',
    'user:eve',
    'feature'
  ]);
});

/** A curve stays in its box for any latencies, and ends with a point. */
test('the curve of latencies', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 60 }),
      values => {
        const { line, end } = curve(values);
        const numbers = [...line.matchAll(/[\d.]+/g)].map(([text]) => Number(text));
        expect(numbers).toHaveLength(2 * Math.max(values.length, 2));
        numbers.forEach((value, index) => {
          expect(value).toBeGreaterThanOrEqual(0);
          expect(value).toBeLessThanOrEqual(index % 2 === 0 ? 100 : 24);
        });
        expect(end).toMatch(/^M100 [\d.]+h0$/);
      }
    )
  );
});

/** The median lies in the middle, and the order does not matter. */
test('the median', () => {
  expect([median([3]), median([2, 1]), median([5, 1, 3]), median([4, 1, 2, 3])]).toEqual([3, 1.5, 3, 2.5]);
});

/** A clock never goes back, whatever messages say, and forgets calls that are over. */
test('when a running call began', () => {
  const first = begunAt(new Map(), [running({ call_id: 'a', elapsed_s: 2 })], 10_000);
  expect(first).toEqual(new Map([['a', 8_000]]));
  const late = begunAt(
    first,
    [running({ call_id: 'a', elapsed_s: 2 }), running({ call_id: 'b', elapsed_s: 0 })],
    12_000
  );
  expect(late).toEqual(
    new Map([
      ['a', 8_000],
      ['b', 12_000]
    ])
  );
  expect(begunAt(late, [running({ call_id: 'b', elapsed_s: 3 })], 13_000)).toEqual(new Map([['b', 10_000]]));
});

/** Running times are short at any length. */
test.each([
  [0, '0.0 s'],
  [1.29, '1.2 s'],
  [99.99, '99.9 s'],
  [100, '1:40 min'],
  [3599, '59:59 min'],
  [3600, '1:00 h'],
  [90_061, '25:01 h']
])('%d s is %s', (value, words) => {
  expect(elapsedWords(value)).toBe(words);
});

/** Progress says what is known and no more. */
test('progress', () => {
  expect(progressWords({ output_tokens: 0, ttft_s: null })).toBe('no token yet');
  expect(progressWords({ output_tokens: 0, ttft_s: 0.3 })).toBe('first after 0.30 s');
  expect(progressWords({ output_tokens: 96, ttft_s: null })).toBe('96 tokens');
  expect(progressWords({ output_tokens: 1, ttft_s: 0.3 })).toBe('1 token · first 0.30 s');
});

/** Simulated dollars are called simulated. */
test('simulated cost', () => {
  expect(simulatedWords(numbers(), 4)).toBe('');
  expect(simulatedWords(numbers({ simulated_usd: '0.43' }), 4)).toBe('all of it simulated');
  expect(simulatedWords(numbers({ simulated_usd: '0.43', cost_known: false }), 4)).toBe(
    '$0.43 of it simulated'
  );
});

/** A row says where an answer came from, or what became of the call. */
test('outcomes', () => {
  expect(outcome(call({ source: 'semantic' }))).toBe('semantic');
  expect(outcome(call({ status: 'cancelled', source: 'model' }))).toBe('cancelled');
  expect(outcomeTitle(call({ status: 'failed', error: 'Refused' }))).toBe('Failed: Refused');
  expect(outcomeTitle(call({ status: 'failed' }))).toBe('Failed');
  expect(outcomeTitle(call())).toBe('Answer from: model');
});

/** Cells are named by their number; one that is not here says where it is. */
test('places', () => {
  const places = new Map([['cell-1', '[3]']]);
  expect(placeOf(call(), places, 'ab')).toBe('[3]');
  expect(placeOf(call({ cell_id: null }), places, 'ab')).toBe('');
  expect(placeOf(call({ cell_id: 'x', notebook: 'ab' }), places, 'ab')).toBe('gone');
  expect(placeOf(call({ cell_id: 'x', notebook: 'cd' }), places, 'ab')).toBe('other');
  expect(placeOf(call({ cell_id: 'x', notebook: 'cd' }), places, null)).toBe('other');
  // The cells of a console are none to go to.
  expect(placeOf(call({ cell_id: 'x', notebook: null }), places, null)).toBe('');
  expect(placeOf(call({ cell_id: 'x', notebook: null }), places, 'ab')).toBe('');
  expect(same(places, new Map(places))).toBe(places);
  expect(same(places, new Map([['cell-1', '[4]']]))).not.toBe(places);
  expect(same(places, new Map())).not.toBe(places);
});

/** A kernel elsewhere learns late whose it is: what it asked before is the notebook's all the same, by its cell. */
test('whose a call is', () => {
  const places = new Map([['cell-1', '[3]']]);
  expect(isOf(call({ notebook: 'ab' }), 'ab', places)).toBe(true);
  expect(isOf(call({ notebook: 'cd' }), 'ab', places)).toBe(false);
  expect(isOf(call({ notebook: null }), 'ab', places)).toBe(true);
  expect(isOf(call({ notebook: null, cell_id: 'console' }), 'ab', places)).toBe(false);
  expect(isOf(call({ notebook: null, cell_id: null }), 'ab', places)).toBe(false);
});

/** Code cells are known by the number beside them; what has no cells has no places. */
test('the cells of a notebook', () => {
  const cells = [
    { id: 'a', type: 'code', executionCount: 3 },
    { id: 'b', type: 'markdown' },
    { id: 'c', type: 'code', executionCount: null },
    { id: 'd', type: 'code', executionCount: 7, executionState: 'running' }
  ];
  const panel = { isDisposed: false, content: { model: { cells } } } as unknown as Widget;
  expect(placesOf(panel)).toEqual(
    new Map([
      ['a', '[3]'],
      ['c', '[ ]'],
      ['d', '[*]']
    ])
  );
  for (const none of [undefined, { isDisposed: false }, { isDisposed: false, content: { model: null } }]) {
    expect(placesOf(none as unknown as Widget).size).toBe(0);
  }
});

/** The list holds at most so many calls, and those are the first ones. */
test('at most so many calls', () => {
  const calls = Array.from({ length: 50 }, (_, index) =>
    call({ call_id: `c${index}`, notebook: index % 2 ? 'a' : 'b' })
  );
  const { all } = listed(calls, {
    filter: '',
    scope: 'notebook',
    notebook: 'a',
    places: new Map(),
    most: 10
  });
  expect(all.map(one => one.call_id)).toEqual(
    calls
      .filter(one => one.notebook === 'a')
      .slice(0, 10)
      .map(one => one.call_id)
  );
});

/** Amounts of a column have their points above each other. */
test('room for digits that an amount has not', () => {
  const amounts = ['$0.00', '$12.50', '$0.0012', '$0.000075', '<$0.000001', 'unknown'];
  expect(amounts.map(one => missingDigits(one, 4))).toEqual([2, 2, 0, 0, 0, 0]);
  expect(missingDigits('$0.0012', 2)).toBe(0);
  // What fills the column as it is stays in it.
  expect(missingDigits('$1,234.50', 4)).toBe(0);
  expect(missingDigits('$123.50', 4)).toBe(2);
  const costs = (...all: (string | null)[]) => all.map(cost_usd => call({ cost_usd }));
  expect(decimalsOf(costs('0.43', null), 2)).toBe(2);
  expect(decimalsOf(costs('0.43', '0.012'), 2)).toBe(3);
  expect(decimalsOf(costs('0.000075'), 2)).toBe(4);
  expect(decimalsOf(costs(null), 2)).toBe(0);
  expect(decimalsOf([], 2)).toBe(0);
});

/** A time of another day has its date. */
test('when a call began', () => {
  const noon = new Date(2026, 10, 21, 12).getTime() / 1000;
  expect(when(noon, new Date(2026, 10, 21, 13))).not.toContain('2026');
  expect(when(noon, new Date(2026, 10, 22, 13))).toContain('2026');
});

/** Endpoints say unknown things not at all. */
test('words of endpoints', () => {
  expect(errorWords({ error_rate: null, attempts: 0 })).toBe('not asked yet');
  expect(errorWords({ error_rate: 0, attempts: 1 })).toBe('1 request');
  expect(roomWords(endpoint())).toBe('');
  expect(engineWords(endpoint())).toBe('');
  expect(engineWords({ engine: { state: 'ready', running: 0, waiting: 0 } })).toBe(
    'ready · 0 running · 0 waiting'
  );
  expect(new Set(Object.values(BREAKERS).map(({ word }) => word)).size).toBe(4);
});

/** The words of the page about the panel are those that are shown. */
test('docs/lab.md explains each word of a breaker', () => {
  const page = readFileSync(join(__dirname, '..', '..', 'docs', 'lab.md'), 'utf-8');
  const row = /^\| endpoint: breaker of a model \| (.*) \|$/m.exec(page)?.[1] ?? '';
  const words = row.split('; ').map(one => one.split(':')[0]);
  expect(words).toEqual(Object.values(BREAKERS).map(({ word }) => word));
});

/** A folded section still says what matters. */
test('what stands in titles', () => {
  const busy = state({ running: [running()], session: numbers({ running: 70, tokens_per_s: 84.2 }) });
  expect(asideOf('running', busy)).toBe('70 calls · 84 tok/s');
  expect(asideOf('running', state())).toBeNull();
  expect(asideOf('endpoints', state({ endpoints: [endpoint()] }))).toBeNull();
  expect(asideOf('session', busy)).toBeNull();
});
