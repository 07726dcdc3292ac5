/** The plugin of the side panel. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { Clipboard, ICommandPalette } from '@jupyterlab/apputils';
import { NotebookActions } from '@jupyterlab/notebook';
import { IStateDB } from '@jupyterlab/statedb';
import { Commands, INbllm } from './tokens';
import { foldsIn } from './views/folds';
import { Panel } from './views/panel';

const RANK = 600;

export const panel: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:panel',
  description: 'Shows session, running calls, last calls and endpoints of the notebook in front.',
  autoStart: true,
  requires: [INbllm],
  optional: [ILayoutRestorer, IStateDB, ICommandPalette],
  activate: (
    app,
    nbllm: INbllm,
    restorer: ILayoutRestorer | null,
    states: IStateDB | null,
    palette: ICommandPalette | null
  ) => {
    const widget = new Panel({
      nbllm,
      commands: app.commands,
      folds: foldsIn(states),
      copy: text => {
        Clipboard.copyToSystem(text);
      }
    });
    app.shell.add(widget, 'right', { rank: RANK });
    restorer?.add(widget, widget.id);
    // A cell gets its number after its calls are over.
    NotebookActions.executed.connect(() => {
      widget.refresh();
    });
    app.commands.addCommand(Commands.openPanel, {
      label: 'Show LLM Calls',
      caption: 'Show what the calls to models of the notebook in front cost',
      execute: () => {
        app.shell.activateById(widget.id);
        // The palette gives the focus back to the notebook as it closes.
        requestAnimationFrame(() => {
          widget.activate();
        });
      }
    });
    palette?.addItem({ command: Commands.openPanel, category: 'nbllm' });
  }
};
