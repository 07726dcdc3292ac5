/** The last calls: a filter, and a list that is walked with the arrow keys. */
import { caretDownIcon } from '@jupyterlab/ui-components';
import type { KeyboardEvent, MouseEvent } from 'react';
import { memo, useMemo, useRef, useState } from 'react';
import { count } from '../format';
import type { Answer } from '../model';
import type { Call } from '../protocol';
import { CallRow, LATENCY, TTFT } from './callrow';
import type { Scope } from './calllist';
import { decimalsOf, listed, placeOf } from './calllist';
import type { Deeds } from './facts';
import { NO_CALLS } from './notice';
import { Note } from './part';

interface Props {
  calls: readonly Call[];
  /** Whether a call of this notebook is under way, or only others. */
  running: 'here' | 'elsewhere' | null;
  notebook: string | null;
  places: ReadonlyMap<string, string>;
  most: number;
  decimals: number;
  deeds: Deeds;
}

export const CallsView = memo(function CallsView(props: Props) {
  const { calls, running, notebook, places, most, decimals, deeds } = props;
  const [filter, setFilter] = useState('');
  const [scope, setScope] = useState<Scope>('notebook');
  const { all, found } = useMemo(
    () => listed(calls, { filter, scope, notebook, places, most }),
    [calls, filter, scope, notebook, places, most]
  );
  if (calls.length === 0) {
    return running === null ? (
      <Note notice={NO_CALLS} copy={deeds.copy} />
    ) : (
      <p className="jp-nbllm-quiet">{FIRST}</p>
    );
  }
  return (
    <>
      <div className="jp-nbllm-Calls-tools">
        <input
          type="search"
          className="jp-mod-styled"
          placeholder="Filter"
          aria-label="Filter the calls by model, source, status, feature, route or error"
          spellCheck={false}
          value={filter}
          onChange={event => {
            setFilter(event.target.value);
          }}
          onKeyDown={event => {
            if (event.key === 'Escape') {
              setFilter('');
            }
          }}
        />
        {notebook !== null && (
          <span>
            <select
              className="jp-mod-styled"
              aria-label="Whose calls are listed"
              value={scope}
              onChange={event => {
                setScope(event.target.value === 'kernel' ? 'kernel' : 'notebook');
              }}
            >
              <option value="notebook">This notebook</option>
              <option value="kernel">This kernel</option>
            </select>
            <caretDownIcon.react tag="span" width="16px" height="16px" />
          </span>
        )}
      </div>
      {found.length === 0 ? (
        <p className="jp-nbllm-quiet">{nothingFound(all.length, calls.length, running === 'here')}</p>
      ) : (
        <CallGrid calls={found} {...{ notebook, places, decimals, deeds }} />
      )}
      {filter !== '' && found.length > 0 && (
        <p className="jp-nbllm-Calls-found jp-nbllm-quiet">
          {count(found.length)} of {count(all.length)}
        </p>
      )}
    </>
  );
});

const FIRST = 'The first call is under way. It is listed here when it ends.';

function nothingFound(inScope: number, inKernel: number, running: boolean): string {
  if (inScope > 0) {
    return 'No call matches the filter.';
  }
  return running
    ? FIRST
    : `No calls of this notebook. Its kernel has ${count(inKernel)}: choose “This kernel”.`;
}

function CallGrid({ calls, notebook, places, decimals, deeds }: Omit<Props, 'most' | 'running'>) {
  const grid = useRef<HTMLDivElement>(null);
  const [current, setCurrent] = useState<string | null>(null);
  const [unfolded, setUnfolded] = useState<string | null>(null);
  const [whys, setWhys] = useState<ReadonlyMap<string, Answer>>(new Map());
  const room = useMemo(() => decimalsOf(calls, decimals), [calls, decimals]);
  // Tab stops at one row: the one that was walked to, or the first.
  const stop = calls.some(call => call.call_id === current) ? current : (calls[0]?.call_id ?? null);

  const unfold = (callId: string) => {
    setUnfolded(callId);
    if (whys.get(callId)?.ok !== true) {
      void deeds.why(callId).then(answer => {
        setWhys(known => new Map(known).set(callId, answer));
      });
    }
  };
  const fold = (callId: string) => {
    setUnfolded(open => (open === callId ? null : open));
  };
  const toggle = (callId: string) => {
    if (unfolded === callId) {
      fold(callId);
      return;
    }
    unfold(callId);
    const call = calls.find(one => one.call_id === callId);
    const cell = call?.cell_id ?? null;
    if (call !== undefined && cell !== null && !['', 'gone'].includes(placeOf(call, places, notebook))) {
      deeds.jump(cell, call.notebook);
    }
  };
  const walk = (index: number) => {
    const call = calls[Math.min(Math.max(index, 0), calls.length - 1)];
    if (call !== undefined) {
      setCurrent(call.call_id);
      rowOf(grid.current, call.call_id)?.focus();
    }
  };
  const onClick = (event: MouseEvent) => {
    const callId = callIdOf(event.target);
    if (callId !== null) {
      setCurrent(callId);
      toggle(callId);
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const callId = callIdOf(event.target);
    if (callId === null || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const index = calls.findIndex(call => call.call_id === callId);
    const deed = {
      ArrowDown: () => {
        walk(index + 1);
      },
      ArrowUp: () => {
        walk(index - 1);
      },
      Home: () => {
        walk(0);
      },
      End: () => {
        walk(calls.length - 1);
      },
      ArrowRight: () => {
        unfold(callId);
      },
      ArrowLeft: () => {
        fold(callId);
      },
      Enter: () => {
        toggle(callId);
      },
      ' ': () => {
        toggle(callId);
      }
    }[event.key];
    if (deed !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      deed();
    }
  };
  return (
    <div
      ref={grid}
      role="treegrid"
      aria-colcount={7}
      aria-label="Last calls, newest first"
      className="jp-nbllm-Calls"
      onClick={onClick}
      onKeyDown={onKeyDown}
    >
      <div role="row" className="jp-nbllm-Call jp-nbllm-Calls-head">
        <span role="columnheader" aria-colindex={1} className="jp-nbllm-Call-model">
          Model
        </span>
        <span
          role="columnheader"
          aria-colindex={2}
          className="jp-nbllm-Call-rung"
          title="The model of the list that answered"
        >
          Rung
        </span>
        <span role="columnheader" aria-colindex={3} className="jp-nbllm-Call-source">
          Source
        </span>
        <span role="columnheader" aria-colindex={4} className="jp-nbllm-Call-ttft" title={TTFT}>
          TTFT
        </span>
        <span role="columnheader" aria-colindex={5} className="jp-nbllm-Call-latency" title={LATENCY}>
          Latency
        </span>
        <span role="columnheader" aria-colindex={6} className="jp-nbllm-Call-cost">
          Cost
        </span>
        <span role="columnheader" aria-colindex={7} className="jp-nbllm-Call-cell">
          Cell
        </span>
      </div>
      {calls.map(call => (
        <CallRow
          key={call.call_id}
          call={call}
          place={placeOf(call, places, notebook)}
          decimals={decimals}
          room={room}
          current={call.call_id === stop}
          unfolded={call.call_id === unfolded}
          why={call.call_id === unfolded ? (whys.get(call.call_id) ?? null) : null}
        />
      ))}
    </div>
  );
}

function callIdOf(target: EventTarget): string | null {
  return target instanceof Element
    ? (target.closest<HTMLElement>('[data-call]')?.dataset.call ?? null)
    : null;
}

function rowOf(grid: HTMLElement | null, callId: string): HTMLElement | null {
  return (
    [...(grid?.querySelectorAll<HTMLElement>('[data-call]') ?? [])].find(
      row => row.dataset.call === callId
    ) ?? null
  );
}
