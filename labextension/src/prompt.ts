/**
 * What a %%llm cell looks like to the editor: its first line is a magic, the rest is a prompt with Jinja's {{ }} and {% %}.
 * Comments {# #} are text, as nbllm's templates have none.
 */
import type { StringStream, StreamParser } from '@codemirror/language';
import { StreamLanguage } from '@codemirror/language';

/** The name of the language, which the editor's content element carries as data-language. */
export const PROMPT = 'nbllm';

const MAGIC = /^\s*%%(?:nb)?llm(?=\s|$)/;

/** Return whether a cell holds a prompt, by its lines; empty ones before the magic count as little as they do for IPython. */
export function isPrompt(lines: Iterable<string>): boolean {
  for (const line of lines) {
    if (line.trim() !== '') {
      return MAGIC.test(line);
    }
  }
  return false;
}

interface Where {
  /** The line of the magic, or what comes below it. */
  place: 'magic' | 'prompt';
  /** With --raw nothing in the prompt has a meaning. */
  raw: boolean;
  /** What ends the expression or statement around the next character. */
  until: '}}' | '%}' | null;
}

const KEYWORDS = new Set([
  ...['if', 'elif', 'else', 'endif', 'for', 'endfor', 'in', 'not', 'and', 'or', 'is', 'set', 'endset'],
  ...['recursive', 'loop', 'macro', 'endmacro', 'filter', 'endfilter', 'raw', 'endraw', 'with', 'endwith'],
  ...['true', 'false', 'none', 'True', 'False', 'None']
]);

const parser: StreamParser<Where> = {
  name: PROMPT,
  // A ' is an apostrophe here.
  languageData: { closeBrackets: { brackets: ['(', '[', '{', '"'] } },
  startState: () => ({ place: 'magic', raw: false, until: null }),
  copyState: where => ({ ...where }),
  token: (stream, where) => (where.place === 'magic' ? magic(stream, where) : prompt(stream, where))
};

/** The language of prompts. */
export const promptLanguage = StreamLanguage.define(parser);

function magic(stream: StringStream, where: Where): string | null {
  if (stream.eatSpace()) {
    return null;
  }
  if (stream.match(/^%%\w*/)) {
    where.raw = /\s--raw(\s|$)/.test(stream.string);
    return ended(stream, where, 'keyword');
  }
  if (stream.match(/^--?[A-Za-z][\w-]*/)) {
    return ended(stream, where, 'attributeName');
  }
  if (stream.match(/^"[^"]*"?|^'[^']*'?/)) {
    return ended(stream, where, 'string');
  }
  stream.match(/^=|^[^\s=]+/);
  return ended(stream, where, null);
}

/** Below the line of the magic the prompt begins. */
function ended(stream: StringStream, where: Where, style: string | null): string | null {
  if (/^\s*$/.test(stream.string.slice(stream.pos))) {
    stream.skipToEnd();
    where.place = 'prompt';
  }
  return style;
}

function prompt(stream: StringStream, where: Where): string | null {
  if (where.raw) {
    stream.skipToEnd();
    return null;
  }
  if (where.until !== null) {
    return expression(stream, where, where.until);
  }
  if (stream.match(/^\{\{[-+]?/)) {
    where.until = '}}';
    return 'operator';
  }
  if (stream.match(/^\{%[-+]?/)) {
    where.until = '%}';
    return 'operator';
  }
  stream.next();
  stream.match(/^[^{]+/);
  return null;
}

function expression(stream: StringStream, where: Where, until: '}}' | '%}'): string | null {
  if (stream.eatSpace()) {
    return null;
  }
  if (stream.match(until === '}}' ? /^[-+]?\}\}/ : /^[-+]?%\}/)) {
    where.until = null;
    return 'operator';
  }
  if (stream.match(/^"(?:[^"\\]|\\.)*"?|^'(?:[^'\\]|\\.)*'?/)) {
    return 'string';
  }
  if (stream.match(/^\d+(\.\d+)?/)) {
    return 'number';
  }
  const word = stream.match(/^[\p{L}_][\p{L}\p{N}_]*/u) as RegExpMatchArray | null;
  if (word !== null) {
    return KEYWORDS.has(word[0]) ? 'keyword' : 'propertyName';
  }
  stream.next();
  return 'punctuation';
}
