/** What the plugins of this extension give each other. */
import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';
import type { Answer, Front, SessionModel } from './model';
import type { Settings } from './settings';

/** The heart of the extension: `nbllm-lab:plugin` provides it, every other plugin requires it. */
export interface INbllm {
  /** The session of the notebook or console in front. */
  readonly front: Front;
  /** The settings now. */
  readonly settings: Settings;
  /** Emitted after the user has changed a setting. */
  readonly settingsChanged: ISignal<unknown, void>;
  /** Return the session of a notebook or console panel; undefined for other widgets. */
  sessionOf(widget: Widget): SessionModel | undefined;
  /** Return the panel that a session belongs to. */
  widgetOf(session: SessionModel): Widget | undefined;
  /** End a call of a session; where the kernel cannot hear while a cell runs, by interrupting that cell if it is the call's. */
  stop(session: SessionModel, callId: string): Promise<Answer>;
}

export const INbllm = new Token<INbllm>(
  'nbllm-lab:INbllm',
  'The sessions of LLM calls of the notebooks and consoles that are open.'
);

/** The commands' ids: whoever adds one is named behind it. */
export const Commands = {
  /** Shows the side panel (the panel's plugin). */
  openPanel: 'nbllm:open-panel'
} as const;
