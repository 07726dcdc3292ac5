/** A session in one line, for the status bar: state in, words out. */
import { SEPARATOR, compact, dollars, plural, sessionCost, speed, tokens, usd } from './format';
import type { SessionModel } from './model';
import type { Budget, State } from './protocol';
import type { Settings } from './settings';

/** What deserves a look; the first one that holds is shown. */
export type Alarm = 'hard' | 'breaker' | 'soft' | 'lost' | null;

export interface Summary {
  /** The line. */
  text: string;
  /** Which colour and symbol it wears. */
  alarm: Alarm;
  /** What the alarm means, in words; empty without one. */
  warning: string;
  /** All of it in sentences, for the tooltip and for screen readers. */
  title: string;
}

type Seen = Pick<SessionModel, 'phase' | 'state'>;

/** Return the line of a session; null where there is nothing to say: no nbllm, or no answer yet. */
export function summarise(session: Seen | null, settings: Settings): Summary | null {
  const state = session?.state ?? null;
  if (session === null || state === null || session.phase === 'none') {
    return null;
  }
  const decimals = settings.currencyDecimals;
  const [alarm, warning] = alarmOf(state, session.phase === 'lost', decimals);
  return {
    text: line(state, decimals),
    alarm,
    warning,
    title: [warning, ...sentences(state, decimals), 'Click for the panel.'].filter(Boolean).join('\n')
  };
}

function line(state: State, decimals: number): string {
  const { session, today } = state;
  const limit = state.budgets.find(budget => budget.scope === 'session')?.hard_usd ?? null;
  const cost = sessionCost(session, decimals) + (limit === null ? '' : ` of ${usd(limit, decimals)}`);
  if (isBusy(state)) {
    const pace = session.tokens_per_s === null ? [] : [speed(session.tokens_per_s)];
    return [cost, tokens(tokensNow(state)), ...pace].join(SEPARATOR);
  }
  // After a restart the session begins at nothing; the day does not. It is looked up less often, so it may be behind for a moment.
  const more = (dollars(today.cost_usd) ?? 0) > (dollars(session.cost_usd) ?? 0);
  const day = usd(today.cost_usd, decimals);
  return more && day !== usd(session.cost_usd, decimals) ? [cost, `today ${day}`].join(SEPARATOR) : cost;
}

function isBusy(state: State): boolean {
  return state.session.running > 0 || state.running.length > 0;
}

/** Return the session's tokens with those of the answers that are under way. */
function tokensNow(state: State): number {
  const streaming = state.running.reduce((sum, call) => sum + call.output_tokens, 0);
  return state.session.input_tokens + state.session.output_tokens + streaming;
}

function alarmOf(state: State, lost: boolean, decimals: number): [Alarm, string] {
  const reached = (level: Budget['level']) => state.budgets.filter(budget => budget.level === level);
  const limits = (budgets: Budget[]) => budgets.map(budget => spent(budget, decimals)).join('; ');
  const [hard, soft] = [reached('hard'), reached('soft')];
  const open = state.endpoints.flatMap(({ name, models }) =>
    models.filter(({ breaker }) => breaker === 'open').map(({ model }) => label(name, model))
  );
  const warnings: [Alarm, string][] = [
    ['hard', hard.length > 0 ? `Hard limit reached: ${limits(hard)}. Further calls are refused.` : ''],
    ['breaker', open.length > 0 ? `Not asked for a while after failures: ${open.join(', ')}.` : ''],
    ['soft', soft.length > 0 ? `Soft limit reached: ${limits(soft)}.` : ''],
    ['lost', lost ? 'The kernel cannot be reached: these are its last numbers.' : '']
  ];
  const said = warnings.filter(([, words]) => words !== '');
  return [said[0]?.[0] ?? null, said.map(([, words]) => words).join(' ')];
}

function spent(budget: Budget, decimals: number): string {
  const limit = budget.level === 'soft' ? (budget.soft_usd ?? budget.hard_usd) : budget.hard_usd;
  const of = limit === null ? '' : ` of ${usd(limit, decimals)}`;
  return `${budget.scope} ${usd(budget.spent_usd, decimals)}${of}`;
}

function label(endpoint: string, model: string): string {
  return model.startsWith(`${endpoint}/`) ? model : `${endpoint}/${model}`;
}

function sentences(state: State, decimals: number): string[] {
  const { session, today } = state;
  const simulated = /[1-9]/.test(session.simulated_usd)
    ? `, ${usd(session.simulated_usd, decimals)} of it simulated`
    : '';
  const parts = [
    plural(session.calls, 'call'),
    `${compact(session.hits)} from the cache`,
    ...(/[1-9]/.test(session.saved_usd) ? [`${usd(session.saved_usd, decimals)} saved`] : []),
    ...(session.failed > 0 ? [`${compact(session.failed)} failed`] : [])
  ];
  const asked = `${compact(session.input_tokens)} in, ${compact(session.output_tokens)} out`;
  return [
    `This kernel's session: ${sessionCost(session, decimals)}${simulated}, ${parts.join(', ')}; tokens: ${asked}.`,
    `Today (UTC), all kernels: ${usd(today.cost_usd, decimals)}, ${plural(today.calls, 'call')}.`
  ];
}
