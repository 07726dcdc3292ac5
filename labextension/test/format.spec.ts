import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  compact,
  count,
  dollars,
  percent,
  plural,
  seconds,
  sessionCost,
  shortLabel,
  source,
  speed,
  tokens,
  usd
} from '../src/format';
import { DEFAULTS } from '../src/settings';
import { numbers } from './states';

const shared = JSON.parse(
  readFileSync(join(__dirname, '..', '..', 'tests', 'data', 'lab_format.json'), 'utf-8')
) as { usd: [string, string][]; seconds: [number, string][]; short_label: [string, string][] };

/** The panel and the meter under an answer never write the same number in two ways. */
describe('the words of the kernel', () => {
  it.each(shared.usd)('%s is %s', (amount, text) => {
    expect(usd(amount)).toBe(text);
    expect(usd(amount, DEFAULTS.currencyDecimals)).toBe(text);
  });
  it.each(shared.seconds)('%s s is %s', (value, text) => {
    expect(seconds(value)).toBe(text);
  });
  it.each(shared.short_label)('%s is %s', (rung, text) => {
    expect(shortLabel(rung)).toBe(text);
  });
});

describe('money', () => {
  it('that is unknown is never 0', () => {
    expect(usd(null)).toBe('unknown');
    expect(usd('not money')).toBe('unknown');
    expect(dollars(null)).toBeNull();
    expect(dollars('0.43')).toBe(0.43);
  });
  it('has the decimals that the user wants, and two significant digits where that is more', () => {
    const amounts = ['0.0012', '0.000075', '0.012345', '0.43', '0.43219', '12.5', '1234.56789'];
    expect(amounts.map(one => usd(one, 2))).toEqual([
      '$0.0012',
      '$0.000075',
      '$0.012',
      '$0.43',
      '$0.43',
      '$12.50',
      '$1,234.57'
    ]);
    expect(amounts.map(one => usd(one, 4))).toEqual([
      '$0.0012',
      '$0.000075',
      '$0.0123',
      '$0.43',
      '$0.4322',
      '$12.50',
      '$1,234.5679'
    ]);
    expect(usd('0.012', 0)).toBe(usd('0.012', 2));
    expect(usd('0.1234567891', 99)).toBe('$0.123457');
  });
  it('is never shown as nothing when it is something, and never off by more than the last digit', () => {
    const amount = fc.bigInt({ min: 1n, max: 10n ** 20n });
    fc.assert(
      fc.property(amount, fc.integer({ min: 2, max: 7 }), (units, decimals) => {
        const text = units.toString().padStart(13, '0');
        const exact = `${text.slice(0, -12)}.${text.slice(-12)}`;
        const shown = usd(exact, decimals);
        expect(shown).not.toMatch(/^\$[0.,]*$/);
        const value = Number(shown.replace(/[<$,]/g, ''));
        const step = 10 ** -(shown.split('.')[1]?.length ?? 0);
        expect(Math.abs(value - Number(exact))).toBeLessThanOrEqual(step * 1.000001);
      })
    );
  });
  it('of a session says what is missing in it', () => {
    expect(sessionCost(numbers({ cost_usd: '0.43' }))).toBe('$0.43');
    expect(sessionCost(numbers({ cost_usd: '0.43', cost_known: false }))).toBe('$0.43 + unknown');
    expect(sessionCost(numbers({ cost_usd: '0.00', cost_known: false }))).toBe('cost unknown');
  });
});

describe('counts', () => {
  it.each([
    [0, '0'],
    [412, '412'],
    [999, '999'],
    [1_000, '1k'],
    [12_400, '12.4k'],
    [99_960, '100k'],
    [124_000, '124k'],
    [999_499, '999k'],
    [999_600, '1M'],
    [1_240_000, '1.2M'],
    [2_500_000_000, '2.5G'],
    [9_007_199_254_740_991, '9007199G']
  ])('%d is %s in little room', (value, text) => {
    expect(compact(value)).toBe(text);
  });
  it('have commas, a noun and a number that fit together, and are never invented', () => {
    expect(count(1_234_567)).toBe('1,234,567');
    expect(count(null)).toBe('unknown');
    expect(compact(null)).toBe('unknown');
    expect([0, 1, 1_200].map(n => plural(n, 'call'))).toEqual(['0 calls', '1 call', '1,200 calls']);
    expect([1, 12_400].map(tokens)).toEqual(['1 token', '12.4k tokens']);
    expect(speed(83.6)).toBe('84 tok/s');
    expect(seconds(null)).toBe('unknown');
  });
  it('grow in the text as they grow', () => {
    const size = (text: string) => {
      const scale = { k: 1e3, M: 1e6, G: 1e9 }[text.slice(-1)] ?? 1;
      return Number(text.replace(/[kMG]$/, '')) * scale;
    };
    fc.assert(
      fc.property(fc.nat(2_000_000_000), fc.nat(2_000_000_000), (a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        expect(size(compact(low))).toBeLessThanOrEqual(size(compact(high)));
      })
    );
  });
});

describe('shares and sources', () => {
  it('are said in words', () => {
    expect([0, 0.0001, 0.004, 0.12, 1].map(percent)).toEqual(['0%', '0.1%', '0.4%', '12%', '100%']);
    expect(percent(null)).toBe('unknown');
    expect(source(null)).toBe('no answer');
    expect(source('cache')).toBe('cache hit');
  });
});
