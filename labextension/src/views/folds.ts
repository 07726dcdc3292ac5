/** The sections that the user has folded, kept from one visit to the next. */
import type { IStateDB } from '@jupyterlab/statedb';
import type { Section } from '../settings';
import { SECTIONS } from '../settings';

export interface Folds {
  read(): Promise<readonly Section[]>;
  write(folded: readonly Section[]): void;
}

const KEY = 'nbllm-lab:panel';

/** Return folds that are kept with the workspace's state; without a place for it, for this page. */
export function foldsIn(states: Pick<IStateDB, 'fetch' | 'save'> | null): Folds {
  return {
    read: async () => {
      // A place that cannot be read or written costs the user a click, not the panel.
      const kept: unknown = await states?.fetch(KEY).catch(() => undefined);
      const folded: unknown =
        typeof kept === 'object' && kept !== null && 'folded' in kept ? kept.folded : [];
      return Array.isArray(folded) ? SECTIONS.filter(section => folded.includes(section)) : [];
    },
    write: folded => {
      states?.save(KEY, { folded: [...folded] }).catch(() => undefined);
    }
  };
}
