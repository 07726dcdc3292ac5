/** What a badge says: calls in, words out. */
import { plural, shortLabel, source, usd } from './format';
import type { Badge } from './protocol';

/** The words of a badge. */
export interface Mark {
  /** One or two words that are always in sight. */
  text: string;
  /** What there may be room for below them: the model, or what several calls cost. */
  more: string;
  /** Which colour it wears: the source of its calls, where they have one in common. */
  source: Badge['source'] | 'several';
  /** All of it, for the tooltip. */
  title: string;
  /** All of it in one sentence, for screen readers. */
  label: string;
}

const MOST_LISTED = 8;
const MODEL_CHARS = 60;
const SCALE = 12;

/** Return the mark of a cell whose outputs show these calls; null for none. decimals: of small amounts. */
export function mark(calls: readonly Badge[], decimals: number): Mark | null {
  const [first] = calls;
  if (first === undefined) {
    return null;
  }
  return calls.length === 1 ? markOfOne(first, decimals) : markOfSeveral(calls, first, decimals);
}

function markOfOne(call: Badge, decimals: number): Mark {
  const cost = usd(call.cost_usd, decimals);
  const model = readable(call.model);
  const words = `${model} · ${costWords(call, decimals)} · ${source(call.source)}`;
  return {
    // What a model call cost, and what an answer without one came from instead.
    text: call.source === 'model' ? (call.cost_usd === null ? 'cost ?' : cost) : call.source,
    // A static answer has no model, and is called static there too.
    more: model === call.source ? '' : lastName(model),
    source: call.source,
    title: `${words}\nMore: %llm_why ${readable(call.call_id)}`,
    label: `LLM call: ${model}, ${costWords(call, decimals)}, ${source(call.source)}`
  };
}

function markOfSeveral(calls: readonly Badge[], first: Badge, decimals: number): Mark {
  const known = calls.map(call => call.cost_usd).filter(cost => cost !== null);
  const unknown = calls.length - known.length;
  const cost = known.length > 0 ? usd(sum(known), decimals) : 'cost ?';
  const total = known.length > 0 && unknown > 0 ? `${cost} + ?` : cost;
  const lines = calls.slice(0, MOST_LISTED).map(call => {
    return `${readable(call.model)} · ${costWords(call, decimals)} · ${source(call.source)}`;
  });
  const rest = calls.length > MOST_LISTED ? [`and ${calls.length - MOST_LISTED} more`] : [];
  return {
    text: plural(calls.length, 'call'),
    more: total,
    source: calls.every(call => call.source === first.source) ? first.source : 'several',
    title: [`${plural(calls.length, 'call')} · ${total}`, ...lines, ...rest].join('\n'),
    label: `${plural(calls.length, 'LLM call')}: ${unknown > 0 ? 'cost unknown in part' : `cost ${cost}`}`
  };
}

function costWords(call: Badge, decimals: number): string {
  return call.cost_usd === null ? 'cost unknown' : usd(call.cost_usd, decimals);
}

/** Return the sum of amounts of USD, exactly. */
function sum(amounts: readonly string[]): string {
  const units = amounts.reduce((total, amount) => {
    const [whole = '0', part = ''] = amount.split('.');
    return total + BigInt(whole + part.padEnd(SCALE, '0'));
  }, 0n);
  const text = units.toString().padStart(SCALE + 1, '0');
  return `${text.slice(0, -SCALE)}.${text.slice(-SCALE)}`;
}

/** Return a name without characters that cannot be seen or that turn the direction of the text around them. */
function readable(name: string): string {
  return shortLabel(name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim() || 'no name', MODEL_CHARS);
}

/** Return what tells a model from others where there is little room: openai/gpt-4o-mini is gpt-4o-mini. */
function lastName(model: string): string {
  const [name = ''] = model.split('?');
  return name.slice(name.lastIndexOf('/') + 1) || name;
}
