/** One call of the list: a row of cells, and what is unfolded beneath it. */
import { memo, useEffect, useRef } from 'react';
import { usd } from '../format';
import type { Answer } from '../model';
import type { Call } from '../protocol';
import { duration, missingDigits, moreOf, outcome, outcomeTitle } from './calllist';
import { classes } from './part';

interface Props {
  call: Call;
  /** Its cell: [3]. */
  place: string;
  decimals: number;
  /** How many decimals the costs of the list have room for. */
  room: number;
  /** Whether Tab stops here. */
  current: boolean;
  unfolded: boolean;
  /** Why it was answered so; null while the kernel is asked. */
  why: Answer | null;
}

/** What the two times are. */
export const TTFT = 'Time to the first token';
export const LATENCY = 'Time to the end of the answer';

/** Drawn anew only when something of it has changed: clicks and keys are heard by the list. */
export const CallRow = memo(function CallRow(props: Props) {
  const { call, place, decimals, room, current, unfolded, why } = props;
  const rung = call.rung ?? '';
  const cost = usd(call.cost_usd, decimals);
  const [ttft, latency] = [duration(call.ttft_s), duration(call.latency_s)];
  return (
    <>
      <div
        role="row"
        className={classes('jp-nbllm-Call', unfolded && 'jp-mod-unfolded')}
        data-call={call.call_id}
        data-status={call.status}
        title={call.status === 'failed' ? outcomeTitle(call) : undefined}
        tabIndex={current ? 0 : -1}
        aria-level={1}
        aria-expanded={unfolded}
      >
        <span role="gridcell" aria-colindex={1} className="jp-nbllm-Call-model" title={call.model}>
          <span className="jp-nbllm-cut">{call.model}</span>
          {call.simulated && <span className="jp-nbllm-Call-simulated jp-nbllm-quiet"> (simulated)</span>}
        </span>
        <span
          role="gridcell"
          aria-colindex={2}
          className={classes('jp-nbllm-Call-rung', rung === call.model && 'jp-mod-same')}
          title={rung === '' ? undefined : rung}
        >
          {rung}
        </span>
        <span role="gridcell" aria-colindex={3} className="jp-nbllm-Call-source" title={outcomeTitle(call)}>
          {outcome(call)}
        </span>
        <span
          role="gridcell"
          aria-colindex={4}
          className="jp-nbllm-Call-ttft"
          title={ttft === '' ? undefined : TTFT}
        >
          {ttft}
        </span>
        <span
          role="gridcell"
          aria-colindex={5}
          className="jp-nbllm-Call-latency"
          title={latency === '' ? undefined : LATENCY}
        >
          {latency}
        </span>
        <span
          role="gridcell"
          aria-colindex={6}
          className={classes('jp-nbllm-Call-cost', call.cost_usd === null && 'jp-nbllm-quiet')}
          style={{ paddingInlineEnd: `${missingDigits(cost, room)}ch` }}
        >
          {cost}
        </span>
        <span role="gridcell" aria-colindex={7} className="jp-nbllm-Call-cell" title={placeTitle(place)}>
          {place}
        </span>
      </div>
      {unfolded && <WhyRow call={call} decimals={decimals} why={why} />}
    </>
  );
});

function WhyRow({ call, decimals, why }: Pick<Props, 'call' | 'decimals' | 'why'>) {
  const row = useRef<HTMLDivElement>(null);
  useEffect(() => {
    row.current?.scrollIntoView({ block: 'nearest' });
  }, [why]);
  return (
    <div role="row" ref={row} className="jp-nbllm-Why" aria-level={2}>
      <div role="gridcell" aria-colindex={1} aria-colspan={7}>
        <dl>
          {moreOf(call, decimals).map(([name, value]) => (
            <div key={name}>
              <dt className="jp-nbllm-label">{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        {why === null ? (
          <p className="jp-nbllm-quiet">Asking the kernel why…</p>
        ) : (
          <pre className={classes(!why.ok && 'jp-nbllm-quiet')}>{why.data?.text ?? why.message}</pre>
        )}
      </div>
    </div>
  );
}

function placeTitle(place: string): string | undefined {
  if (place === 'gone') {
    return 'Its cell is no longer in this notebook';
  }
  return place === 'other' ? 'Its cell is in another notebook' : undefined;
}
