/** What this kernel's session has used. */
import { memo } from 'react';
import { compact, count, plural, sessionCost, usd } from '../format';
import type { Budget, CacheMode, SessionNumbers, Today } from '../protocol';
import { Budgets } from './budgets';
import { Sparkline } from './sparkline';

interface Props {
  session: SessionNumbers;
  today: Today;
  budgets: readonly Budget[];
  cacheMode: CacheMode | null;
  decimals: number;
}

export const SessionView = memo(function SessionView({
  session,
  today,
  budgets,
  cacheMode,
  decimals
}: Props) {
  const simulated = simulatedWords(session, decimals);
  return (
    <div className="jp-nbllm-Session">
      <div className="jp-nbllm-Cost">
        <span className="jp-nbllm-spoken">Cost of this session: </span>
        <span className="jp-nbllm-Cost-amount" title="This kernel's session">
          {sessionCost(session, decimals)}
        </span>
        <span
          className="jp-nbllm-Cost-today"
          title={`This UTC day, all kernels: ${plural(today.calls, 'call')}`}
        >
          today {usd(today.cost_usd, decimals)}
        </span>
        {simulated !== '' && <span className="jp-nbllm-Cost-simulated">{simulated}</span>}
      </div>
      <dl className="jp-nbllm-Facts">
        <Fact name="Tokens" title={`${count(session.input_tokens)} in, ${count(session.output_tokens)} out`}>
          {compact(session.input_tokens)} in · {compact(session.output_tokens)} out
        </Fact>
        <Fact name="Calls">
          {count(session.calls)}
          {session.failed > 0 && <span className="jp-nbllm-failed"> · {count(session.failed)} failed</span>}
        </Fact>
        <Fact name="Cache hits">
          {count(session.hits)}
          {/[1-9]/.test(session.saved_usd) && ` · ${usd(session.saved_usd, decimals)} saved`}
        </Fact>
        {cacheMode !== null && <Fact name="Cache here">{cacheMode}</Fact>}
      </dl>
      <Budgets budgets={budgets} decimals={decimals} />
      <Sparkline latencies={session.latency_s} />
    </div>
  );
});

interface FactProps {
  name: string;
  title?: string;
  children: React.ReactNode;
}

function Fact({ name, title, children }: FactProps) {
  return (
    <div title={title}>
      <dt className="jp-nbllm-label">{name}</dt>
      <dd className="jp-nbllm-number">{children}</dd>
    </div>
  );
}

/** Return how much of the cost no real model has asked for; empty for none. */
export function simulatedWords(session: SessionNumbers, decimals: number): string {
  if (!/[1-9]/.test(session.simulated_usd)) {
    return '';
  }
  const all = session.cost_known && session.simulated_usd === session.cost_usd;
  return all ? 'all of it simulated' : `${usd(session.simulated_usd, decimals)} of it simulated`;
}
