/**
 * Numbers as people read them: values in, text out, in the words of nbllm's own meter (nbllm/money.py, core/meter_line.py).
 * tests/data/lab_format.json holds the two together. What is unknown is called unknown, never 0.
 */
import type { Call, SessionNumbers } from './protocol';

/** Between the parts of a line; the dot never begins a line. */
export const SEPARATOR = '\u00a0· ';
const SCALE = 12;
const TEN_CENTS = 10n ** 11n;
/** A millionth of a dollar is the least that is written out. */
const LEAST_SHOWN = 10n ** 6n;
/** Cents always; more than these mean nothing to a person. */
const DECIMALS = { least: 2, most: 6 } as const;

/**
 * Return money as people read it: $1,234.50, $0.43, $0.0012; "unknown" for null. amount: a decimal number of USD as text.
 * Below ten cents two significant digits are kept, so that a small cost is never shown as nothing. decimals: how many the
 * larger amounts have; with 2, the default, each amount is written as the kernel writes it.
 */
export function usd(amount: string | null, decimals: number = DECIMALS.least): string {
  const units = amount === null ? null : parseUsd(amount);
  if (units === null) {
    return 'unknown';
  }
  if (units > 0n && units < LEAST_SHOWN) {
    return '<$0.000001';
  }
  const wanted = Math.min(Math.max(Math.round(decimals), DECIMALS.least), DECIMALS.most);
  // The first digit that is not 0 stands at this place behind the point, 1 for tenths.
  const first = SCALE + 1 - units.toString().length;
  const digits = units === 0n || units >= TEN_CENTS ? wanted : Math.max(first + 1, wanted);
  const text = fixed(units, digits);
  const point = text.length - digits;
  return `$${text.slice(0, point + DECIMALS.least)}${text.slice(point + DECIMALS.least).replace(/0+$/, '')}`;
}

/** Return money as a number, for bars and curves only; null for null and for what is no amount. */
export function dollars(amount: string | null): number | null {
  return amount === null || parseUsd(amount) === null ? null : Number(amount);
}

/** Return a session's cost; what is not known is named, not left out. */
export function sessionCost(numbers: SessionNumbers, decimals?: number): string {
  const known = usd(numbers.cost_usd, decimals);
  if (numbers.cost_known) {
    return known;
  }
  return /[1-9]/.test(numbers.cost_usd) ? `${known} + unknown` : 'cost unknown';
}

/** Return a count with commas: 12,345; "unknown" for null. */
export function count(value: number | null): string {
  return value === null ? 'unknown' : value.toLocaleString('en-US', { maximumFractionDigits: 0 });
}

/** Return a count in little room: 412, 12.4k, 124k, 1.2M; "unknown" for null. */
export function compact(value: number | null): string {
  if (value === null) {
    return 'unknown';
  }
  const steps = [
    [1e3, 'k'],
    [1e6, 'M'],
    [1e9, 'G']
  ] as const;
  let text = value.toFixed(0);
  for (const [size, letter] of steps) {
    // 999,960 is 1M, not 1000k: each step begins where the one before would be rounded up to it.
    if (value >= size * (size === 1e3 ? 1 : 0.9995)) {
      const scaled = value / size;
      text = `${scaled >= 99.95 ? scaled.toFixed(0) : scaled.toFixed(1).replace(/\.0$/, '')}${letter}`;
    }
  }
  return text;
}

/** Return a noun with its number: 1 call, 2 calls, 1,200 calls. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** Return tokens in little room: 12.4k tokens. */
export function tokens(value: number): string {
  return `${compact(value)} token${value === 1 ? '' : 's'}`;
}

/** Return a speed: 84 tok/s. */
export function speed(tokensPerS: number): string {
  return `${count(Math.round(tokensPerS))} tok/s`;
}

/** Return a time with the precision that means something, in seconds or milliseconds; "unknown" for null. */
export function seconds(valueS: number | null): string {
  if (valueS === null) {
    return 'unknown';
  }
  if (valueS < 0.0095) {
    return `${Number((Math.max(valueS, 0) * 1000).toPrecision(2))} ms`;
  }
  if (valueS < 99.95) {
    return `${valueS.toFixed(valueS < 1 ? 2 : 1)} s`;
  }
  return `${count(Math.round(valueS))} s`;
}

/** Return a share as percent: 0%, 0.4%, 12%; "unknown" for null. */
export function percent(share: number | null): string {
  if (share === null) {
    return 'unknown';
  }
  const value = share * 100;
  return `${value > 0 && value < 0.95 ? Math.max(value, 0.1).toFixed(1) : value.toFixed(0)}%`;
}

const SOURCES: Record<NonNullable<Call['source']>, string> = {
  model: 'model',
  cache: 'cache hit',
  semantic: 'similar question in the cache',
  stale: 'stale answer from the cache',
  static: 'static answer'
};

/** Return where an answer came from, in words. */
export function source(value: Call['source']): string {
  return value === null ? 'no answer' : SOURCES[value];
}

/** Return a model id as a line can hold it: of a long one the options behind its ? give way first. */
export function shortLabel(rung: string, mostChars = 36): string {
  if (rung.length <= mostChars) {
    return rung;
  }
  const question = rung.indexOf('?');
  const name = question < 0 ? rung : rung.slice(0, question);
  const first = question < 0 ? '' : (rung.slice(question + 1).split('&')[0] ?? '');
  if (question >= 0 && name.length + first.length + 3 <= mostChars) {
    return `${name}?${first}&…`;
  }
  return `${rung.slice(0, mostChars - 1)}…`;
}

/** Return an amount in millionths of a millionth of a dollar; null for what is no amount. */
function parseUsd(amount: string): bigint | null {
  const found = /^(\d{1,15})(?:\.(\d{1,12}))?$/.exec(amount);
  return found ? BigInt(`${found[1]}${(found[2] ?? '').padEnd(SCALE, '0')}`) : null;
}

/** Return units with so many decimals, rounded half to even, with commas. */
function fixed(units: bigint, digits: number): string {
  const step = 10n ** BigInt(SCALE - digits);
  const rest = units % step;
  const odd = (units / step) % 2n;
  const up = rest * 2n > step || (rest * 2n === step && odd === 1n) ? 1n : 0n;
  const text = (units / step + up).toString().padStart(digits + 1, '0');
  const whole = BigInt(text.slice(0, text.length - digits)).toLocaleString('en-US');
  return `${whole}.${text.slice(text.length - digits)}`;
}
