/** The plugin of the meter in the status bar. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Commands, INbllm } from './tokens';
import { Meter } from './views/meter';

export const status: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:status',
  description: 'Shows the meter of the session in front in the status bar.',
  autoStart: true,
  requires: [INbllm],
  optional: [IStatusBar],
  activate: (app, nbllm: INbllm, bar: IStatusBar | null) => {
    if (bar === null) {
      return; // Notebook 7 has none
    }
    const meter = new Meter(nbllm, () => {
      if (app.commands.hasCommand(Commands.openPanel)) {
        void app.commands.execute(Commands.openPanel);
      }
    });
    bar.registerStatusItem('nbllm-lab:status', {
      item: meter,
      align: 'middle',
      rank: 1,
      isActive: () => meter.isActive,
      activeStateChanged: meter.activeChanged
    });
  }
};
