/** Which calls are listed, and what their columns say. Pure. */
import { seconds, source, tokens, usd } from '../format';
import type { Call } from '../protocol';

export type Scope = 'notebook' | 'kernel';

export interface Wanted {
  /** Words that must all be found in a row. */
  filter: string;
  scope: Scope;
  /** The tag of the notebook in front; null: all calls of the kernel. */
  notebook: string | null;
  /** The cells of the notebook in front. */
  places: ReadonlyMap<string, string>;
  most: number;
}

/** Return the calls of a scope, newest first, and those of them that a filter finds. */
export function listed(calls: readonly Call[], wanted: Wanted): { all: Call[]; found: Call[] } {
  const { notebook, places, scope, most } = wanted;
  const own =
    notebook === null || scope === 'kernel' ? calls : calls.filter(call => isOf(call, notebook, places));
  const all = own.slice(0, most);
  const words = wanted.filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) {
    return { all, found: all };
  }
  return { all, found: all.filter(call => words.every(word => textOf(call).includes(word))) };
}

/**
 * Return whether a call was made by a notebook. A kernel that another server has started is told only by the page whose it is;
 * what it asked before that is known by the cell.
 */
export function isOf(
  call: Pick<Call, 'notebook' | 'cell_id'>,
  notebook: string,
  places: ReadonlyMap<string, string>
): boolean {
  return call.notebook === null
    ? call.cell_id !== null && places.has(call.cell_id)
    : call.notebook === notebook;
}

const texts = new WeakMap<Call, string>();

/** Return what a filter looks into. */
function textOf(call: Call): string {
  let text = texts.get(call);
  if (text === undefined) {
    const { model, rung, feature, error, route } = call;
    text = [model, rung, feature, error, route, outcome(call), source(call.source), simulated(call)]
      .join('\n')
      .toLowerCase();
    texts.set(call, text);
  }
  return text;
}

/** Return where an answer came from in one word, or why there is none. */
export function outcome({ status, source }: Pick<Call, 'status' | 'source'>): string {
  return status === 'done' ? (source ?? 'done') : status;
}

/** Return the same in a sentence. */
export function outcomeTitle(call: Pick<Call, 'status' | 'source' | 'error'>): string {
  switch (call.status) {
    case 'done':
      return `Answer from: ${source(call.source)}`;
    case 'failed':
      return call.error === null ? 'Failed' : `Failed: ${call.error}`;
    case 'cancelled':
      return 'Stopped before its end; what came was kept';
    case 'unknown':
      return 'Its process ended before the call did';
  }
}

function simulated(call: Call): string {
  return call.simulated ? 'simulated' : '';
}

/** Return a duration for a column; empty where there was none, such as the first token of a whole answer. */
export function duration(valueS: number | null): string {
  return valueS === null ? '' : seconds(valueS);
}

/** So many characters the column of costs holds, of them so many decimals while the points stand above each other. */
const COST_CHARS = 9;
const ALIGNED = 4;

/** Return how many decimals the costs of some calls have, as far as they are aligned. */
export function decimalsOf(calls: readonly Call[], decimals: number): number {
  const has = calls.map(call => decimalsIn(usd(call.cost_usd, decimals)));
  return Math.min(Math.max(0, ...has), ALIGNED);
}

/** Return how many digits an amount has less than the longest one: with room for them, the points stand above each other. */
export function missingDigits(amount: string, room: number): number {
  const missing = amount.includes('.') ? room - decimalsIn(amount) : 0;
  return Math.max(Math.min(missing, COST_CHARS - amount.length), 0);
}

function decimalsIn(amount: string): number {
  return amount.split('.')[1]?.length ?? 0;
}

/**
 * Return where a call was made: its cell's number, "gone", "other" for one of another notebook; empty outside of notebooks,
 * also in a console, whose cells are none.
 */
export function placeOf(call: Call, places: ReadonlyMap<string, string>, notebook: string | null): string {
  if (call.cell_id === null) {
    return '';
  }
  const place = places.get(call.cell_id);
  if (place !== undefined) {
    return place;
  }
  if (call.notebook === null) {
    return '';
  }
  return notebook !== null && call.notebook === notebook ? 'gone' : 'other';
}

/** Return the facts of a call that have no column, each with its name. */
export function moreOf(call: Call, decimals: number): [string, string][] {
  const facts: [string, string | null][] = [
    ['Started', when(call.started_at)],
    ['Error', call.error],
    ['Tokens', inAndOut(call)],
    ['Saved', call.saved_usd === null ? null : usd(call.saved_usd, decimals)],
    ['Feature', call.feature],
    ['Asked for', call.rung === null || call.rung === call.model ? null : call.model]
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== null && fact[1] !== '');
}

function inAndOut({ input_tokens, output_tokens }: Call): string | null {
  if (input_tokens === null && output_tokens === null) {
    return null;
  }
  const part = (value: number | null) => (value === null ? 'unknown' : tokens(value).replace(/ .*/, ''));
  return `${part(input_tokens)} in · ${part(output_tokens)} out`;
}

/** Return a time of day, with its date where that is not today. */
export function when(startedAt: number, now = new Date()): string {
  const date = new Date(startedAt * 1000);
  const time = date.toLocaleTimeString();
  return date.toDateString() === now.toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}
