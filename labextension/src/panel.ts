/** The plugin of the side panel. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { IStateDB } from '@jupyterlab/statedb';
import { SECTIONS } from './settings';
import { Commands, INbllm } from './tokens';
import type { Folds } from './views/panel';
import { Panel } from './views/panel';

const RANK = 600;
const KEY = 'nbllm-lab:panel';

export const panel: JupyterFrontEndPlugin<void> = {
  id: KEY,
  description:
    'Shows session, running calls, last calls and endpoints of the notebook in front in the right side panel.',
  autoStart: true,
  requires: [INbllm],
  optional: [ILayoutRestorer, IStateDB],
  activate: (app, nbllm: INbllm, restorer: ILayoutRestorer | null, states: IStateDB | null) => {
    const widget = new Panel(nbllm, app.commands, foldsIn(states));
    app.shell.add(widget, 'right', { rank: RANK });
    restorer?.add(widget, widget.id);
    app.commands.addCommand(Commands.openPanel, {
      label: 'Show LLM Calls',
      caption: 'Show what the calls to models of the notebook in front cost',
      execute: () => {
        app.shell.activateById(widget.id);
      }
    });
  }
};

/** Return folds that are kept with the workspace's state; without a place for it, for this page. */
export function foldsIn(states: Pick<IStateDB, 'fetch' | 'save'> | null): Folds {
  return {
    read: async () => {
      // A place that cannot be read costs the user a click, not the panel.
      const kept: unknown = await states?.fetch(KEY).catch(() => undefined);
      const folded: unknown =
        typeof kept === 'object' && kept !== null && 'folded' in kept ? kept.folded : [];
      return Array.isArray(folded) ? SECTIONS.filter(section => folded.includes(section)) : [];
    },
    write: folded => {
      void states?.save(KEY, { folded: [...folded] }).catch(() => undefined);
    }
  };
}
