import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { INbllm } from './tokens';

export const status: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:status',
  description: 'Shows the meter of the session in front in the status bar.',
  autoStart: true,
  requires: [INbllm],
  optional: [IStatusBar],
  activate: () => undefined
};
