/** The calls under way, each with its Stop button. */
import { stopIcon } from '@jupyterlab/ui-components';
import { memo, useEffect, useId, useRef, useState } from 'react';
import { seconds, shortLabel, tokens } from '../format';
import type { Running } from '../protocol';
import type { Deeds } from './facts';

/** How often a number that only time changes is drawn anew. */
const TICK_MS = 200;

interface Props {
  running: readonly Running[];
  places: ReadonlyMap<string, string>;
  /** Whether the kernel can be heard: else no clock goes on. */
  live: boolean;
  deeds: Deeds;
}

/** What became of a wish to stop a call: null while it is not known. */
type Stops = ReadonlyMap<string, string | null>;

export const RunningView = memo(function RunningView({ running, places, live, deeds }: Props) {
  const [stops, setStops] = useState<Stops>(new Map());
  const elapsed = useElapsed(running, live);
  const set = (callId: string, answer: string | null) => {
    setStops(known => new Map(known).set(callId, answer));
  };
  const stop = (callId: string) => {
    set(callId, null);
    void deeds.stop(callId).then(({ ok, message }) => {
      if (!ok) {
        set(callId, message);
      }
    });
  };
  if (running.length === 0) {
    return <p className="jp-nbllm-quiet">Nothing is running.</p>;
  }
  return (
    <ul className="jp-nbllm-Running" aria-label="Calls under way">
      {running.map(call => (
        <RunningRow
          key={call.call_id}
          call={call}
          elapsedS={elapsed(call)}
          place={call.cell_id === null ? undefined : places.get(call.cell_id)}
          stopping={stops.get(call.call_id) === null}
          refused={stops.get(call.call_id) ?? ''}
          live={live}
          stop={stop}
          jump={deeds.jump}
        />
      ))}
    </ul>
  );
});

interface RowProps {
  call: Running;
  elapsedS: number;
  place: string | undefined;
  stopping: boolean;
  refused: string;
  live: boolean;
  stop: (callId: string) => void;
  jump: Deeds['jump'];
}

function RunningRow({ call, elapsedS, place, stopping, refused, live, stop, jump }: RowProps) {
  const id = useId();
  const why = call.stoppable ? refused : CANNOT;
  const cell = call.cell_id;
  return (
    <li>
      <div className="jp-nbllm-Running-head">
        <span className="jp-nbllm-cut" title={runningTitle(call)}>
          {shortLabel(call.rung ?? call.model)}
        </span>
        {cell !== null && place !== undefined && (
          <button
            type="button"
            className="jp-nbllm-Button jp-nbllm-place"
            title="Go to the cell"
            aria-label={`Go to the cell ${place}`}
            onClick={() => {
              jump(cell, call.notebook);
            }}
          >
            {place}
          </button>
        )}
        <button
          type="button"
          className="jp-nbllm-Button jp-nbllm-Stop"
          disabled={stopping || !call.stoppable || !live}
          aria-label={`${stopping ? 'Stopping' : 'Stop'} ${call.rung ?? call.model}`}
          aria-describedby={why === '' ? undefined : id}
          title={call.shared ? SHARED : 'Stop this call'}
          onClick={() => {
            stop(call.call_id);
          }}
        >
          {stopping ? (
            'Stopping…'
          ) : (
            <>
              <stopIcon.react tag="span" width="14px" height="14px" />
              Stop
            </>
          )}
        </button>
      </div>
      <div className="jp-nbllm-Running-facts">
        <span className="jp-nbllm-number">{elapsedWords(elapsedS)}</span>
        <span>{progressWords(call)}</span>
        {call.shared && <span title={SHARED}>shared</span>}
      </div>
      <div id={id} className="jp-nbllm-Running-why" role="status">
        {why}
      </div>
    </li>
  );
}

const SHARED = 'Other calls wait for the same answer: Stop ends this one only.';
const CANNOT =
  'It began before this page listened, or in another process of the session. To end it, interrupt the kernel that runs it.';

function runningTitle(call: Running): string {
  const rung = call.rung === null || call.rung === call.model ? '' : `\nanswering now: ${call.rung}`;
  return `${call.model}${rung}`;
}

/** Return a running time that changes at a calm pace: tenths of seconds, then seconds, then minutes. */
export function elapsedWords(valueS: number): string {
  if (valueS < 100) {
    return `${(Math.floor(valueS * 10) / 10).toFixed(1)} s`;
  }
  const whole = Math.floor(valueS);
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${pad(whole % 60)} min`
    : `${Math.floor(minutes / 60)}:${pad(minutes % 60)} h`;
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}

/** Return how far a call is. */
export function progressWords(call: Pick<Running, 'output_tokens' | 'ttft_s'>): string {
  if (call.output_tokens === 0) {
    return call.ttft_s === null ? 'no token yet' : `first after ${seconds(call.ttft_s)}`;
  }
  return [
    tokens(call.output_tokens),
    ...(call.ttft_s === null ? [] : [`first ${seconds(call.ttft_s)}`])
  ].join(' · ');
}

/** Return a clock for calls that goes on between two messages, and never back. */
function useElapsed(running: readonly Running[], live: boolean): (call: Running) => number {
  const [now, setNow] = useState(() => performance.now());
  const begun = useRef(new Map<string, number>());
  const ticking = live && running.length > 0;
  useEffect(() => {
    if (!ticking) {
      return;
    }
    const timer = setInterval(() => {
      setNow(performance.now());
    }, TICK_MS);
    return () => {
      clearInterval(timer);
    };
  }, [ticking]);
  useEffect(() => {
    const heard = performance.now();
    begun.current = begunAt(begun.current, running, heard);
    setNow(heard);
  }, [running]);
  return call => {
    const at = begun.current.get(call.call_id);
    return at === undefined || !live ? call.elapsed_s : Math.max(call.elapsed_s, (now - at) / 1000);
  };
}

/** Return when each running call began, in the page's own milliseconds: the earliest that a message has said. */
export function begunAt(
  known: ReadonlyMap<string, number>,
  running: readonly Running[],
  nowMs: number
): Map<string, number> {
  return new Map(
    running.map(({ call_id, elapsed_s }) => [
      call_id,
      Math.min(known.get(call_id) ?? Infinity, nowMs - elapsed_s * 1000)
    ])
  );
}
