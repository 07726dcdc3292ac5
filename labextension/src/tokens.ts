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
  openPanel: 'nbllm:open-panel',
  /** Shows a cell: {cellId, notebook: tag | null} (commands' plugin, as all that follow). */
  jumpToCell: 'nbllm:jump-to-cell',
  /** Asks for the session's hard limit and sets it. */
  setSessionBudget: 'nbllm:set-session-budget',
  /** Drops the stored answers of the notebook in front, after asking. */
  clearCache: 'nbllm:clear-cache',
  /** How calls of the notebook in front use the cache: {mode: 'use' | 'refresh' | 'off' | 'default'}. */
  cacheMode: 'nbllm:cache-mode',
  /** Plots the session's calls in a new cell: {kind: 'latency' | 'cost' ...}. */
  openPlots: 'nbllm:open-plots',
  /** Copies the session's report as Markdown. */
  copyReport: 'nbllm:copy-report'
} as const;
