/** The latency of the last model calls as one small curve. */
import { memo } from 'react';
import { plural, seconds } from '../format';

const WIDTH = 100;
const HEIGHT = 24;
const MARGIN = 2;

export const Sparkline = memo(function Sparkline({ latencies }: { latencies: readonly number[] }) {
  const last = latencies.at(-1);
  if (last === undefined) {
    return null;
  }
  const { line, area, end } = curve(latencies);
  const middle = seconds(median(latencies));
  const most = seconds(Math.max(...latencies));
  return (
    <figure
      className="jp-nbllm-Latency"
      role="img"
      aria-label={`Latency of the last ${plural(latencies.length, 'model call')}: median ${middle}, longest ${most}, last ${seconds(last)}`}
    >
      <figcaption aria-hidden>
        <span className="jp-nbllm-label">Latency</span>
        <span title={`Median of the last ${plural(latencies.length, 'model call')}; longest ${most}`}>
          median {middle}
        </span>
        <span>last {seconds(last)}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden>
        <path className="jp-nbllm-Latency-area" d={area} />
        <path className="jp-nbllm-Latency-line" d={line} vectorEffect="non-scaling-stroke" />
        <path className="jp-nbllm-Latency-end" d={end} vectorEffect="non-scaling-stroke" />
      </svg>
    </figure>
  );
});

/** Return the paths of a curve with 0 at its foot: the line, what is under it, and a point at its end. One value is level. */
export function curve(some: readonly number[]): { line: string; area: string; end: string } {
  const values = some.length === 1 ? [...some, ...some] : some;
  const top = Math.max(...values, 0) || 1;
  const step = WIDTH / (values.length - 1);
  const points = values.map((value, index) => {
    const y = HEIGHT - MARGIN - (Math.max(value, 0) / top) * (HEIGHT - 2 * MARGIN);
    return [round(index * step), round(y)] as const;
  });
  const line = points.map(([x, y], index) => `${index === 0 ? 'M' : 'L'}${x} ${y}`).join('');
  const [x, y] = points.at(-1) ?? [0, HEIGHT];
  return { line, area: `${line}L${x} ${HEIGHT}L0 ${HEIGHT}z`, end: `M${x} ${y}h0` };
}

/** Return the middle of at least one number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return ((sorted[Math.ceil(half) - 1] ?? 0) + (sorted[Math.floor(half)] ?? 0)) / 2;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
