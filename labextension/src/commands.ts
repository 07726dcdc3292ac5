/** The plugin of the commands: in the palette, and in a menu that schema/commands.json describes. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { INotebookTracker } from '@jupyterlab/notebook';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyJSONObject, ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { clearCache, copyReport, setBudget, setCacheMode, tell } from './actions';
import { jumpTo, runBelow } from './cells';
import { OnFrame } from './frame';
import type { SessionModel } from './model';
import type { CacheMode } from './protocol';
import { Commands, INbllm } from './tokens';

const CATEGORY = 'nbllm';

/** The cache modes, in the order of the menu; "default" is what the settings say. */
const MODES = {
  use: 'Use',
  refresh: 'Refresh',
  off: 'Off',
  default: 'As the Settings Say'
} as const;
type Mode = keyof typeof MODES;

/** What %llm_plot draws of a session without being told more, and how the menu calls it. */
export const PLOTS = {
  latency: 'Latency',
  ttft: 'Time to First Token',
  cost: 'Cost',
  cache: 'Cache Hits and Savings',
  tokens: 'Tokens',
  timeline: 'Timeline'
} as const;
type Plot = keyof typeof PLOTS;

export const commands: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:commands',
  description: 'Adds the commands for the session of the notebook in front.',
  autoStart: true,
  requires: [INbllm],
  optional: [INotebookTracker, ICommandPalette],
  activate: (app, nbllm: INbllm, notebooks: INotebookTracker | null, palette: ICommandPalette | null) => {
    addSessionCommands(app, nbllm);
    if (notebooks !== null) {
      addNotebookCommands(app, nbllm, notebooks);
    }
    followSession(app.commands, nbllm);
    if (palette !== null) {
      addToPalette(palette, app.commands);
    }
  }
};

/** Return why there is nothing to ask in a session, in the few words that a menu has room for; null when there is. */
export function whyNot(session: Pick<SessionModel, 'phase'> | null): string | null {
  switch (session?.phase) {
    case 'live':
      return null;
    case 'waiting':
      return 'the kernel has not answered yet';
    case 'lost':
      return 'no connection to the kernel';
    case 'none':
      return 'nbllm is not loaded: %load_ext nbllm';
    case undefined:
      return 'no notebook is open';
  }
}

function addSessionCommands({ commands }: JupyterFrontEnd, nbllm: INbllm): void {
  const add = (id: string, options: Options) => {
    addCommand(commands, nbllm, id, options);
  };
  add(Commands.setSessionBudget, {
    label: () => 'Set Session Budget…',
    run: session => setBudget(session)
  });
  add(Commands.clearCache, {
    label: () => 'Clear Cache of This Notebook…',
    run: session => clearCache(session, nbllm.widgetOf(session)?.title.label ?? 'this notebook')
  });
  add(Commands.cacheMode, {
    label: args => {
      const name = MODES[modeOf(args)];
      return args.isPalette === true ? `Cache for This Notebook: ${name}` : name;
    },
    run: (session, args) => setCacheMode(session, asCacheMode(modeOf(args))),
    isToggled: (session, args) => session.state?.cache_mode === asCacheMode(modeOf(args)),
    args: { mode: { type: 'string', enum: Object.keys(MODES) } }
  });
  add(Commands.copyReport, {
    label: () => 'Copy Session Report as Markdown',
    run: session => copyReport(session)
  });
}

function addNotebookCommands(
  { commands, shell }: JupyterFrontEnd,
  nbllm: INbllm,
  notebooks: INotebookTracker
): void {
  const panelOf = (session: SessionModel): NotebookPanel | undefined =>
    notebooks.find(panel => panel === nbllm.widgetOf(session));
  addCommand(commands, nbllm, Commands.openPlots, {
    label: args => {
      const kind = PLOTS[plotOf(args)];
      return args.isPalette === true ? `Plot in a New Cell: ${kind}` : kind;
    },
    why: session => (panelOf(session) === undefined ? 'a console has no cells' : null),
    run: (session, args) => {
      const panel = panelOf(session);
      if (panel !== undefined) {
        // Whoever calls the command need not wait for a kernel that is busy.
        void runBelow(panel, `%llm_plot ${plotOf(args)}`);
      }
      return Promise.resolve();
    },
    args: { kind: { type: 'string', enum: Object.keys(PLOTS) } }
  });
  commands.addCommand(Commands.jumpToCell, {
    label: 'Jump to the Cell of a Call',
    describedBy: {
      args: {
        type: 'object',
        properties: { cellId: { type: 'string' }, notebook: { type: ['string', 'null'] } },
        required: ['cellId']
      }
    },
    execute: async args => {
      const { cellId, notebook } = args;
      if (typeof cellId !== 'string') {
        return;
      }
      const tag = typeof notebook === 'string' ? notebook : null;
      const jump = await jumpTo(cellId, tag, notebooks, nbllm, shell);
      if (!jump.ok) {
        tell({ ok: false, message: jump.message });
      }
    }
  });
}

interface Options {
  label: (args: ReadonlyPartialJSONObject) => string;
  run: (session: SessionModel, args: ReadonlyPartialJSONObject) => Promise<void>;
  /** Why it cannot be run although there is a session. */
  why?: (session: SessionModel) => string | null;
  isToggled?: (session: SessionModel, args: ReadonlyPartialJSONObject) => boolean;
  /** JSON schemas of the arguments. */
  args?: ReadonlyJSONObject;
}

/** Add a command for the session in front. Where there is none, or nothing to ask in it, its label says why. */
function addCommand(commands: CommandRegistry, nbllm: INbllm, id: string, options: Options): void {
  const { label, run, why, isToggled, args = {} } = options;
  const reason = () => {
    const { session } = nbllm.front;
    return whyNot(session) ?? (session === null ? null : (why?.(session) ?? null));
  };
  commands.addCommand(id, {
    label: given => {
      const said = reason();
      return said === null ? label(given) : `${label(given)} (${said})`;
    },
    isEnabled: () => reason() === null,
    execute: async given => {
      const { session } = nbllm.front;
      const said = reason();
      if (session === null || said !== null) {
        tell({ ok: false, message: `This cannot be done now: ${said ?? 'no notebook is open'}.` });
      } else {
        await run(session, given);
      }
    },
    ...(isToggled === undefined
      ? {}
      : {
          isToggleable: true,
          isToggled: given => {
            const { session } = nbllm.front;
            return session?.phase === 'live' && isToggled(session, given);
          }
        }),
    describedBy: { args: { type: 'object', properties: args } }
  });
}

/** Menus and palette look again when another session is in front, or when what they show of it has changed. */
function followSession(commands: CommandRegistry, nbllm: INbllm): void {
  let shown: unknown[] = [];
  const frame = new OnFrame(() => {
    const { session } = nbllm.front;
    const now = [session, session?.phase, session?.state?.cache_mode];
    if (now.some((value, index) => value !== shown[index])) {
      shown = now;
      [
        Commands.setSessionBudget,
        Commands.clearCache,
        Commands.cacheMode,
        Commands.copyReport,
        Commands.openPlots
      ]
        .filter(id => commands.hasCommand(id))
        .forEach(id => {
          commands.notifyCommandChanged(id);
        });
    }
  });
  nbllm.front.changed.connect(() => {
    frame.request();
  });
}

function addToPalette(palette: ICommandPalette, commands: CommandRegistry): void {
  const plain = [Commands.setSessionBudget, Commands.clearCache, Commands.copyReport];
  const add = (command: string, args: ReadonlyPartialJSONObject = {}) => {
    palette.addItem({ command, category: CATEGORY, args: { ...args, isPalette: true } });
  };
  plain.forEach(command => {
    add(command);
  });
  Object.keys(MODES).forEach(mode => {
    add(Commands.cacheMode, { mode });
  });
  if (commands.hasCommand(Commands.openPlots)) {
    Object.keys(PLOTS).forEach(kind => {
      add(Commands.openPlots, { kind });
    });
  }
}

function modeOf({ mode }: ReadonlyPartialJSONObject): Mode {
  return typeof mode === 'string' && Object.hasOwn(MODES, mode) ? (mode as Mode) : 'default';
}

function asCacheMode(mode: Mode): CacheMode | null {
  return mode === 'default' ? null : mode;
}

function plotOf({ kind }: ReadonlyPartialJSONObject): Plot {
  return typeof kind === 'string' && Object.hasOwn(PLOTS, kind) ? (kind as Plot) : 'latency';
}
