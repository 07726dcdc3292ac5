/** What is said where there are no numbers, or none that are true now: what happened and what to do. Pure. */
import type { Facts } from './facts';

export interface Notice {
  text: string;
  /** What to run in a cell; null for nothing. */
  code: string | null;
}

const LOAD = '%load_ext nbllm';

/** Return what to say in place of the numbers; null where there are numbers. */
export function emptyNotice(facts: Pick<Facts, 'title' | 'phase' | 'kernel' | 'state'>): Notice | null {
  if (facts.state !== null) {
    return null;
  }
  if (facts.title === null) {
    return { text: 'Open a notebook, and see here what its calls to models cost.', code: null };
  }
  switch (facts.kernel) {
    case null:
    case 'dead':
    case 'terminating':
      return { text: 'There is no kernel. Start one from the Kernel menu, then run in a cell:', code: LOAD };
    case 'restarting':
    case 'autorestarting':
      return {
        text: 'The kernel is restarting, and its session begins anew. Then run in a cell:',
        code: LOAD
      };
    case 'starting':
      return { text: 'The kernel is starting. Then run in a cell:', code: LOAD };
  }
  if (facts.phase === 'none') {
    return { text: 'This kernel has not loaded nbllm. Run in a cell:', code: LOAD };
  }
  return { text: 'Waiting for the kernel. While it runs a cell, it may answer only afterwards.', code: null };
}

/** Return what to say above numbers that are not true any more; null where they are. */
export function lostNotice(facts: Pick<Facts, 'phase' | 'state'>): string | null {
  return facts.state !== null && facts.phase === 'lost'
    ? 'The kernel cannot be reached: these are its last numbers. They go on when it answers again.'
    : null;
}

export const NO_CALLS: Notice = {
  text: 'No calls yet. Run in a cell:',
  code: '%%llm -m sim/small\nSay hello in five words.'
};
