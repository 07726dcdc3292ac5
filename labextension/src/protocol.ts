/**
 * The messages between the kernel and this extension: the only place that knows them. The other half is
 * nbllm/notebook/lab; both halves are tested against tests/data/lab_protocol.
 *
 * Money is a string of a decimal number of USD, null where unknown. Times are Unix seconds, durations seconds. No message
 * holds a prompt, an answer or a key.
 */
import type { Check, Checked } from './check';
import {
  Refused,
  bool,
  count,
  list,
  nullable,
  number,
  object,
  oneOf,
  own,
  partial,
  pattern,
  text
} from './check';

/** The comm target, on both sides. */
export const TARGET = 'nbllm';
/** The version of all messages here. */
export const VERSION = 1;
/** The member of an output's metadata that a badge is read from. */
export const BADGE = 'nbllm';
/** How many calls a state holds. */
export const MOST_CALLS = 200;

const version: Check<1> = (value, where) => {
  if (value !== VERSION) {
    throw new Refused(`${where} is not ${VERSION}`);
  }
  return VERSION;
};
const money = pattern(/^[0-9]{1,15}(\.[0-9]{1,12})?$/, 'a decimal number of USD');
const seconds = number(0, 1e9);
const time = number(0, 1e11);
const name = text(200);
const id = text(64, 1);
const sentence = text(2_000);
const report = text(200_000);
const tag = pattern(/^[0-9a-f]{16}$/, 'a tag of a notebook');
const cacheMode = oneOf('use', 'refresh', 'off');
const source = oneOf('model', 'cache', 'semantic', 'stale', 'static');
const breaker = oneOf('closed', 'half open', 'open', 'off');

const session = object({
  cost_usd: money,
  cost_known: bool,
  simulated_usd: money,
  input_tokens: count(),
  output_tokens: count(),
  calls: count(),
  hits: count(),
  saved_usd: money,
  failed: count(),
  running: count(),
  tokens_per_s: nullable(number(0, 1e9)),
  latency_s: list(seconds, 60)
});

const today = object({ cost_usd: nullable(money), calls: count() });

const budget = object({
  scope: name,
  spent_usd: money,
  reserved_usd: money,
  hard_usd: nullable(money),
  soft_usd: nullable(money),
  level: oneOf('ok', 'soft', 'hard')
});

const running = object({
  call_id: id,
  model: name,
  rung: nullable(name),
  started_at: time,
  elapsed_s: seconds,
  output_tokens: count(),
  ttft_s: nullable(seconds),
  cell_id: nullable(name),
  notebook: nullable(tag),
  shared: bool,
  stoppable: bool
});

const call = object({
  call_id: id,
  started_at: time,
  model: name,
  rung: nullable(name),
  source: nullable(source),
  status: oneOf('done', 'failed', 'cancelled', 'unknown'),
  error: nullable(name),
  feature: nullable(name),
  ttft_s: nullable(seconds),
  latency_s: nullable(seconds),
  cost_usd: nullable(money),
  saved_usd: nullable(money),
  input_tokens: nullable(count()),
  output_tokens: nullable(count()),
  cell_id: nullable(name),
  notebook: nullable(tag),
  route: nullable(name),
  reason: nullable(name),
  simulated: bool
});

const endpoint = object({
  name,
  models: list(object({ model: name, breaker }), 50),
  error_rate: nullable(number(0, 1)),
  attempts: count(),
  requests_left: nullable(count()),
  tokens_left: nullable(count()),
  engine: nullable(
    object({
      state: oneOf('ready', 'starting', 'stopped', 'wedged', 'failed'),
      running: nullable(count()),
      waiting: nullable(count())
    })
  )
});

const members = {
  session,
  today,
  budgets: list(budget, 100),
  running: list(running, 50),
  calls: list(call, MOST_CALLS),
  endpoints: list(endpoint, 50),
  cache_mode: nullable(cacheMode)
};
const state = object(members);
const kernel = object({ nbllm: name, session: name, started_at: time, pid: count() });
const data = partial({
  markdown: report,
  text: report,
  entries: count(),
  hard_usd: nullable(money),
  mode: nullable(cacheMode)
});

const badge = object({ v: version, model: name, cost_usd: nullable(money), source, call_id: id });

export type SessionNumbers = Checked<typeof session>;
export type Today = Checked<typeof today>;
export type Budget = Checked<typeof budget>;
export type Running = Checked<typeof running>;
export type Call = Checked<typeof call>;
export type Endpoint = Checked<typeof endpoint>;
export type Breaker = Checked<typeof breaker>;
export type CacheMode = Checked<typeof cacheMode>;
/** What an output says of the call that it shows, in its metadata under BADGE. */
export type Badge = Checked<typeof badge>;
export type KernelFacts = Checked<typeof kernel>;
/** Everything that is shown. `calls` is newest first. */
export type State = Checked<typeof state>;
/** What is new of a state: whole members, but of `calls` only the rows that are new or have changed. */
export type Change = Partial<State>;
/** What a command brought: report the Markdown, why the text, clear_cache and count_cache the number of entries, and so on. */
export type ResultData = Checked<typeof data>;

const fromKernel = {
  announce: object({ v: version, type: oneOf('announce'), nbllm: name }),
  snapshot: object({
    v: version,
    type: oneOf('snapshot'),
    seq: count(),
    kernel,
    notebook: nullable(tag),
    state
  }),
  delta: object({ v: version, type: oneOf('delta'), seq: count(1), state: partial(members) }),
  result: object({
    v: version,
    type: oneOf('result'),
    id,
    ok: bool,
    message: sentence,
    data: nullable(data)
  })
};
export type Announce = Checked<typeof fromKernel.announce>;
export type Snapshot = Checked<typeof fromKernel.snapshot>;
export type Delta = Checked<typeof fromKernel.delta>;
export type Result = Checked<typeof fromKernel.result>;
export type FromKernel = Announce | Snapshot | Delta | Result;

/** Return what a kernel sent, checked, without members that this version does not know. Throws Refused. */
export function fromKernelMessage(message: unknown): FromKernel {
  const kind = typeof message === 'object' && message !== null ? own(message, 'type') : undefined;
  if (typeof kind !== 'string' || !Object.hasOwn(fromKernel, kind)) {
    throw new Refused('it is of no known type');
  }
  return fromKernel[kind as keyof typeof fromKernel](message, kind);
}

const pace = number(1, 10);
const base = { v: version, type: oneOf('command'), id };
const toKernel = {
  hello: object({
    v: version,
    type: oneOf('hello'),
    front: name,
    app: name,
    notebook: nullable(text(4096)),
    updates_per_s: pace
  }),
  ask_snapshot: object({ v: version, type: oneOf('ask_snapshot') }),
  pace: object({ v: version, type: oneOf('pace'), updates_per_s: pace })
};
const commands = {
  stop: object({ ...base, do: oneOf('stop'), call_id: id }),
  set_budget: object({ ...base, do: oneOf('set_budget'), usd: nullable(money) }),
  cache_mode: object({ ...base, do: oneOf('cache_mode'), mode: nullable(cacheMode) }),
  clear_cache: object({ ...base, do: oneOf('clear_cache') }),
  count_cache: object({ ...base, do: oneOf('count_cache') }),
  report: object({ ...base, do: oneOf('report') }),
  why: object({ ...base, do: oneOf('why'), call_id: id })
};
type Envelope = 'v' | 'type' | 'id';
/** What the user may ask the kernel for, without what every message has. */
export type Wish = {
  [K in keyof typeof commands]: Omit<Checked<(typeof commands)[K]>, Envelope>;
}[keyof typeof commands];
export type Hello = Checked<typeof toKernel.hello>;
export type ToKernel =
  Checked<(typeof toKernel)[keyof typeof toKernel]> | Checked<(typeof commands)[keyof typeof commands]>;

/** Return a message for the kernel, checked as the kernel checks it. Throws Refused. */
export function toKernelMessage(message: unknown): ToKernel {
  const kind = typeof message === 'object' && message !== null ? own(message, 'type') : undefined;
  if (kind === 'command') {
    const wish = own(message as object, 'do');
    if (typeof wish === 'string' && Object.hasOwn(commands, wish)) {
      return commands[wish as keyof typeof commands](message, wish);
    }
  } else if (typeof kind === 'string' && Object.hasOwn(toKernel, kind)) {
    return toKernel[kind as keyof typeof toKernel](message, kind);
  }
  throw new Refused('it is of no known type');
}

/** Return the first message: who asks, for which notebook (null: a console), and how often news may come. */
export function hello(about: Omit<Hello, 'v' | 'type'>): ToKernel {
  return toKernelMessage({ v: VERSION, type: 'hello', ...about });
}

/** Return the request for a whole state. */
export function askSnapshot(): ToKernel {
  return { v: VERSION, type: 'ask_snapshot' };
}

/** Return the wish for so many updates a second. */
export function setPace(updates_per_s: number): ToKernel {
  return toKernelMessage({ v: VERSION, type: 'pace', updates_per_s });
}

/** Return a command. */
export function command(id: string, wish: Wish): ToKernel {
  return toKernelMessage({ v: VERSION, type: 'command', id, ...wish });
}

/** Return what the metadata of an output says of its call; null where it says nothing, or nothing that can be relied on. */
export function badgeOf(metadata: unknown): Badge | null {
  const found = typeof metadata === 'object' && metadata !== null ? own(metadata, BADGE) : undefined;
  try {
    return found === undefined ? null : badge(found, BADGE);
  } catch (error) {
    if (error instanceof Refused) {
      return null; // a notebook may come from anywhere
    }
    throw error;
  }
}
