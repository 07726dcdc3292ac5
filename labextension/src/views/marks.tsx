/** Small signs that differ in shape, not in colour alone; the words beside them say the same. */
import type { ReactNode } from 'react';

import type { Breaker, Budget } from '../protocol';

/** What both are drawn on. The words beside it say the same, so it is hidden from screen readers. */
function Sign({ mark, children }: { mark: string; children: ReactNode }) {
  return (
    <svg className="jp-nbllm-Mark" data-mark={mark} width={12} height={12} viewBox="0 0 12 12" aria-hidden>
      {children}
    </svg>
  );
}

/** A breaker's light: full, half, broken, crossed out. */
export function Light({ breaker }: { breaker: Breaker }) {
  return (
    <Sign mark={breaker}>
      {breaker === 'closed' && <circle cx="6" cy="6" r="4" fill="currentColor" />}
      {breaker === 'half open' && (
        <>
          <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" strokeWidth="1.5" />
          <path d="M6 2a4 4 0 0 0 0 8z" fill="currentColor" />
        </>
      )}
      {breaker === 'open' && (
        <>
          <path d="M3.7.5h4.6L11.5 3.7v4.6L8.3 11.5H3.7L.5 8.3V3.7z" fill="currentColor" />
          <path d="M6 3v3.6M6 8.1v1.2" className="jp-nbllm-Mark-inner" strokeWidth="1.5" />
        </>
      )}
      {breaker === 'off' && (
        <>
          <circle cx="6" cy="6" r="4.5" fill="none" stroke="currentColor" strokeWidth="1.5" />
          <path d="M3 9l6-6" stroke="currentColor" strokeWidth="1.5" />
        </>
      )}
    </Sign>
  );
}

/** The sign of a budget that is near or at its limit; none for one that is not. */
export function LevelMark({ level }: { level: Budget['level'] }) {
  if (level === 'ok') {
    return null;
  }
  return (
    <Sign mark={level}>
      <path
        d={level === 'soft' ? 'M6 .8 11.7 11H.3z' : 'M3.7.5h4.6L11.5 3.7v4.6L8.3 11.5H3.7L.5 8.3V3.7z'}
        fill="currentColor"
      />
      <path d="M6 3.8v3.5M6 8.6v1.2" className="jp-nbllm-Mark-inner" strokeWidth="1.3" />
    </Sign>
  );
}
