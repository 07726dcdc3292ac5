/** One bar for each budget that has a limit; what is spent without one is one line. */
import { memo } from 'react';
import { dollars, plural, usd } from '../format';
import type { Budget } from '../protocol';
import { LevelMark } from './marks';

/** So many bars, and so many scopes without a limit, are in sight; the others are behind a fold. */
const FEW = 6;

interface Props {
  budgets: readonly Budget[];
  decimals: number;
}

export const Budgets = memo(function Budgets({ budgets, decimals }: Props) {
  const { bars, rows, more } = arranged(budgets);
  return (
    <>
      {bars.map(budget => (
        <Bar key={budget.scope} budget={budget} decimals={decimals} />
      ))}
      <Rows budgets={rows} decimals={decimals} />
      {more.length > 0 && (
        <details className="jp-nbllm-More">
          <summary>{plural(more.length, 'more budget')}</summary>
          {more.filter(hasLimit).map(budget => (
            <Bar key={budget.scope} budget={budget} decimals={decimals} />
          ))}
          <Rows budgets={more.filter(budget => !hasLimit(budget))} decimals={decimals} />
        </details>
      )}
    </>
  );
});

/** Return which budgets are drawn as bars, which as a line, and which are folded away: never one that warns. */
export function arranged(budgets: readonly Budget[]): { bars: Budget[]; rows: Budget[]; more: Budget[] } {
  const limited = budgets.filter(hasLimit);
  // What the whole session and day have cost stands above already.
  const free = budgets.filter(budget => !hasLimit(budget) && !['session', 'day'].includes(budget.scope));
  const bars = limited.filter(({ level }, index) => index < FEW || level !== 'ok');
  const rows = free.slice(0, FEW);
  return {
    bars,
    rows,
    more: [...limited.filter(budget => !bars.includes(budget)), ...free.slice(FEW)]
  };
}

function Rows({ budgets, decimals }: Props) {
  if (budgets.length === 0) {
    return null;
  }
  return (
    <ul className="jp-nbllm-Free" aria-label="Spent without a limit">
      {budgets.map(({ scope, spent_usd }) => (
        <li key={scope}>
          <span className="jp-nbllm-label jp-nbllm-cut" title={scope}>
            {scopeWords(scope)}
          </span>
          <span className="jp-nbllm-number">{usd(spent_usd, decimals)}</span>
        </li>
      ))}
    </ul>
  );
}

function Bar({ budget, decimals }: { budget: Budget; decimals: number }) {
  const { scope, level } = budget;
  const { spent, reserved, soft } = shares(budget);
  const words = `${usd(budget.spent_usd, decimals)} of ${usd(limitOf(budget), decimals)}`;
  const warning = warningOf(budget, decimals);
  return (
    <div className="jp-nbllm-Budget" data-level={level}>
      <div className="jp-nbllm-Budget-head">
        <LevelMark level={level} />
        <span className="jp-nbllm-label jp-nbllm-cut" title={scope}>
          {scopeWords(scope)}
        </span>
        <span className="jp-nbllm-number">{words}</span>
      </div>
      <div
        className="jp-nbllm-Bar"
        role="meter"
        aria-label={`Budget: ${scopeWords(scope)}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(spent * 100)}
        aria-valuetext={warning === '' ? words : `${words}. ${warning}`}
        title={details(budget, decimals)}
      >
        <span className="jp-nbllm-Bar-spent" style={{ width: `${spent * 100}%` }} />
        <span className="jp-nbllm-Bar-reserved" style={{ width: `${reserved * 100}%` }} />
        {soft !== null && <span className="jp-nbllm-Bar-soft" style={{ left: `${soft * 100}%` }} />}
      </div>
      {warning !== '' && <div className="jp-nbllm-Budget-warning">{warning}</div>}
    </div>
  );
}

function hasLimit(budget: Budget): boolean {
  return limitOf(budget) !== null;
}

/** A budget with a soft limit only is drawn against that. */
function limitOf(budget: Budget): string | null {
  return budget.hard_usd ?? budget.soft_usd;
}

/** Return which shares of a bar are spent and held for calls under way, and where its soft limit stands; each from 0 to 1. */
export function shares(budget: Budget): { spent: number; reserved: number; soft: number | null } {
  const limit = dollars(limitOf(budget)) ?? 0;
  // Nothing fits into a limit of 0: its bar is full.
  const share = (amount: string) => (limit > 0 ? Math.min((dollars(amount) ?? 0) / limit, 1) : 1);
  const spent = share(budget.spent_usd);
  const soft = budget.soft_usd !== null && budget.hard_usd !== null ? share(budget.soft_usd) : null;
  return {
    spent,
    reserved: Math.min(share(budget.reserved_usd), 1 - spent),
    soft: soft !== null && soft < 1 ? soft : null
  };
}

/** Return what a budget's level means; empty where all is well. */
export function warningOf(budget: Budget, decimals: number): string {
  if (budget.level === 'hard') {
    return 'Limit reached: further calls are refused.';
  }
  return budget.level === 'soft' ? `Soft limit of ${usd(budget.soft_usd, decimals)} reached.` : '';
}

/** Return a scope as people call it. */
export function scopeWords(scope: string): string {
  const [kind, ...rest] = scope.split(':');
  if (scope === 'session') {
    return 'Session';
  }
  if (scope === 'day') {
    return 'Today (UTC)';
  }
  return kind === 'feature' && rest.length > 0 ? rest.join(':') : scope;
}

function details(budget: Budget, decimals: number): string {
  const rest = [
    `spent ${usd(budget.spent_usd, decimals)}`,
    ...(/[1-9]/.test(budget.reserved_usd)
      ? [`held for running calls ${usd(budget.reserved_usd, decimals)}`]
      : []),
    ...(budget.soft_usd === null ? [] : [`soft limit ${usd(budget.soft_usd, decimals)}`]),
    ...(budget.hard_usd === null ? [] : [`hard limit ${usd(budget.hard_usd, decimals)}`])
  ];
  return `${budget.scope}: ${rest.join(', ')}`;
}
