/**
 * Checks of JSON values that came from outside: each takes an unknown value and returns it typed, or throws Refused.
 * What a check does not know is dropped, at every level. Nothing here knows what the values mean.
 */

/** A value that is not what it should be. The message names the place and the rule, never the value. */
export class Refused extends Error {
  override name = 'Refused';
}

/** A check of one value; where: the place in the message, for the error. */
export type Check<T> = (value: unknown, where: string) => T;

/** The type that a check returns. */
export type Checked<C> = C extends Check<infer T> ? T : never;

export const bool: Check<boolean> = (value, where) =>
  typeof value === 'boolean' ? value : refuse(where, 'true or false');

/** A finite number from low to high. */
export function number(low: number, high: number): Check<number> {
  return (value, where) =>
    typeof value === 'number' && value >= low && value <= high
      ? value
      : refuse(where, `a number from ${low} to ${high}`);
}

/** A whole number from low on that a JavaScript number holds without loss. */
export function count(low = 0): Check<number> {
  return (value, where) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= low
      ? value
      : refuse(where, 'a whole number');
}

/** A string of low to high Unicode code points. */
export function text(high: number, low = 0): Check<string> {
  return (value, where) =>
    typeof value === 'string' && fits(value, low, high) ? value : refuse(where, `text of at most ${high}`);
}

/** A string that a pattern describes from start to end. */
export function pattern(rule: RegExp, says: string): Check<string> {
  return (value, where) => (typeof value === 'string' && rule.test(value) ? value : refuse(where, says));
}

/** One of some strings. */
export function oneOf<const T extends string>(...words: readonly T[]): Check<T> {
  const known = new Set<unknown>(words);
  return (value, where) => (known.has(value) ? (value as T) : refuse(where, words.join(', ')));
}

/** What a check takes, or null. */
export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, where) => (value === null ? null : check(value, where));
}

/** A list of at most so many. Its length is looked at first, so that a million rows cost nothing. */
export function list<T>(check: Check<T>, most: number): Check<T[]> {
  return (value, where) =>
    Array.isArray(value) && value.length <= most
      ? value.map((one, index) => check(one, `${where}[${index}]`))
      : refuse(where, `a list of at most ${most}`);
}

type Shape = Record<string, Check<unknown>>;
type Whole<S extends Shape> = { [K in keyof S]: Checked<S[K]> };

/** An object with all of these members. */
export function object<S extends Shape>(shape: S): Check<Whole<S>> {
  const members = Object.entries(shape);
  return (value, where) => {
    const given = asObject(value, where);
    const taken: [string, unknown][] = members.map(([name, check]) => [
      name,
      check(own(given, name), `${where}.${name}`)
    ]);
    return Object.fromEntries(taken) as Whole<S>;
  };
}

/** An object with any of these members. */
export function partial<S extends Shape>(shape: S): Check<Partial<Whole<S>>> {
  const members = Object.entries(shape);
  return (value, where) => {
    const given = asObject(value, where);
    const taken: [string, unknown][] = members
      .filter(([name]) => Object.hasOwn(given, name))
      .map(([name, check]) => [name, check(given[name], `${where}.${name}`)]);
    return Object.fromEntries(taken) as Partial<Whole<S>>;
  };
}

/** Return a member of an object, undefined where it has none of its own. */
export function own(value: object, name: string): unknown {
  return Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}

function asObject(value: unknown, where: string): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : refuse(where, 'an object');
}

function fits(value: string, low: number, high: number): boolean {
  // A code point is one or two units: most strings are judged without counting.
  if (value.length <= high && value.length >= 2 * low) {
    return true;
  }
  if (value.length > 2 * high || value.length < low) {
    return false;
  }
  const points = Array.from(value).length;
  return points >= low && points <= high;
}

function refuse(where: string, wanted: string): never {
  throw new Refused(`${where} is not ${wanted}`);
}
