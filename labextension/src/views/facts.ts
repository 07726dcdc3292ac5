/** What the panel draws, and what it may ask for: values in, no Jupyter. */
import type { Answer, Phase } from '../model';
import type { State } from '../protocol';
import type { Section, Settings } from '../settings';

/** One moment of the session in front. */
export interface Facts {
  /** Changes when another session is in front: whatever the user unfolded or stopped there stays there. */
  session: number;
  /** The notebook or console in front; null for none. */
  title: string | null;
  phase: Phase;
  /** The kernel's status as JupyterLab knows it; null for no kernel. */
  kernel: string | null;
  state: State | null;
  /** The tag of the notebook in front; null for a console. */
  notebook: string | null;
  /** What stands beside each cell of the notebook in front, by cell id: [3], [*], [ ]. */
  places: ReadonlyMap<string, string>;
  settings: Settings;
  folded: readonly Section[];
}

/** What the user can do here. */
export interface Deeds {
  stop(callId: string): Promise<Answer>;
  why(callId: string): Promise<Answer>;
  /** Show a cell; notebook: the tag of the notebook that it is in. */
  jump(cellId: string, notebook: string | null): void;
  copy(text: string): void;
  fold(section: Section, folded: boolean): void;
}
