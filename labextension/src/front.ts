/** The plugin that the others are built on: sessions of the open notebooks and consoles, and the settings. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILabShell } from '@jupyterlab/application';
import { IConsoleTracker } from '@jupyterlab/console';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { PageConfig } from '@jupyterlab/coreutils';
import { Signal } from '@lumino/signaling';
import { UNTRACKED, untracked } from './quiet';
import { Sessions } from './sessions';
import type { Settings } from './settings';
import { DEFAULTS, readSettings } from './settings';
import { INbllm } from './tokens';
import { VERSION } from './version';

export const front: JupyterFrontEndPlugin<INbllm> = {
  id: 'nbllm-lab:plugin',
  description: 'Listens to the kernels that have loaded nbllm.',
  autoStart: true,
  provides: INbllm,
  optional: [INotebookTracker, IConsoleTracker, ILabShell, ISettingRegistry],
  activate: (
    app,
    notebooks: INotebookTracker | null,
    consoles: IConsoleTracker | null,
    shell: ILabShell | null,
    registry: ISettingRegistry | null
  ): INbllm => {
    PageConfig.setOption(UNTRACKED, untracked(PageConfig.getOption(UNTRACKED)));
    let settings = DEFAULTS;
    const owner = {};
    const settingsChanged = new Signal<unknown, void>(owner);
    const about = {
      front: VERSION,
      app: `${app.name} ${app.version}`.slice(0, 200),
      pace: () => settings.updatesPerSecond
    };
    const sessions = new Sessions({ notebooks, consoles, shell, about });
    const take = (next: Settings) => {
      const paced = next.updatesPerSecond !== settings.updatesPerSecond;
      settings = next;
      if (paced) {
        sessions.setPace(next.updatesPerSecond);
      }
      settingsChanged.emit();
    };
    registry
      ?.load('nbllm-lab:plugin')
      .then(loaded => {
        take(readSettings(loaded.composite));
        loaded.changed.connect(() => {
          take(readSettings(loaded.composite));
        });
      })
      .catch((error: unknown) => {
        console.error('nbllm: the settings could not be read, so the defaults hold.', error);
      });
    return {
      front: sessions.front,
      get settings() {
        return settings;
      },
      settingsChanged,
      sessionOf: widget => sessions.of(widget),
      widgetOf: session => sessions.widgetOf(session),
      stop: (session, callId) => sessions.stop(session, callId)
    };
  }
};
