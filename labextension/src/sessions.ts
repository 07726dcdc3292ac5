/** One session model for each open notebook and console, and which of them is in front. */
import type { ILabShell } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { ConsolePanel, IConsoleTracker } from '@jupyterlab/console';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel, Session } from '@jupyterlab/services';
import type { IChangedArgs } from '@jupyterlab/coreutils';
import type { Widget } from '@lumino/widgets';
import type { About } from './connection';
import { Connection } from './connection';
import type { Answer } from './model';
import { Front, SessionModel } from './model';

type Panel = NotebookPanel | ConsolePanel;

interface Seat {
  panel: Panel;
  model: SessionModel;
  connection: Connection | null;
}

/** Follows the trackers of notebooks and consoles. */
export class Sessions {
  readonly front = new Front();

  constructor(private readonly _options: Sessions.Options) {
    const { notebooks, consoles, shell } = _options;
    const trackers = [notebooks, consoles].filter(tracker => tracker !== null);
    for (const tracker of trackers) {
      tracker.forEach((panel: Panel) => {
        this._add(panel);
      });
      tracker.widgetAdded.connect((_: unknown, panel: Panel) => {
        this._add(panel);
      });
      tracker.currentChanged.connect((_: unknown, panel: Panel | null) => {
        // A new panel is the current one before it is said to be added.
        if (panel !== null) {
          this._add(panel);
        }
        this._bringToFront(panel);
      });
      this._bringToFront(tracker.currentWidget);
    }
    shell?.currentChanged.connect((_, { newValue }) => {
      this._bringToFront(newValue);
    });
    // The server keeps a kernel's subshells when a page is closed or reloaded: say goodbye while there is time.
    window.addEventListener('pagehide', ({ persisted }) => {
      // A page that is only put aside comes back as it was.
      if (!persisted) {
        this._seats.forEach(seat => seat.connection?.dispose());
      }
    });
  }

  of(widget: Widget): SessionModel | undefined {
    return this._seats.get(widget)?.model;
  }

  widgetOf(session: SessionModel): Widget | undefined {
    return this._seatOf(session)?.panel;
  }

  async stop(session: SessionModel, callId: string): Promise<Answer> {
    const seat = this._seatOf(session);
    if (!seat?.connection) {
      return { ok: false, message: 'The kernel has ended.', data: null };
    }
    return seat.connection.stop(callId);
  }

  setPace(updatesPerSecond: number): void {
    this._seats.forEach(seat => seat.connection?.setPace(updatesPerSecond));
  }

  private _seatOf(session: SessionModel): Seat | undefined {
    return [...this._seats.values()].find(seat => seat.model === session);
  }

  private _add(panel: Panel): void {
    if (this._seats.has(panel)) {
      return;
    }
    const seat: Seat = { panel, model: new SessionModel(), connection: null };
    this._seats.set(panel, seat);
    const context = panel.sessionContext;
    const about: About = {
      ...this._options.about,
      notebook: () => (isNotebook(panel) ? panel.context.path : null)
    };
    const connect = (kernel: Kernel.IKernelConnection | null | undefined) => {
      seat.connection?.dispose();
      seat.connection = kernel && !kernel.isDisposed ? new Connection(kernel, seat.model, about) : null;
    };
    const onKernel = (
      _: ISessionContext,
      change: IChangedArgs<Kernel.IKernelConnection | null, Kernel.IKernelConnection | null, 'kernel'>
    ) => {
      connect(change.newValue);
    };
    const onProperty = (_: ISessionContext, what: keyof Session.IModel) => {
      if (what === 'path') {
        seat.connection?.rename();
      }
    };
    context.kernelChanged.connect(onKernel);
    context.propertyChanged.connect(onProperty);
    connect(context.session?.kernel);
    panel.disposed.connect(() => {
      context.kernelChanged.disconnect(onKernel);
      context.propertyChanged.disconnect(onProperty);
      this._remove(seat);
    });
  }

  private _remove(seat: Seat): void {
    this._seats.delete(seat.panel);
    seat.connection?.dispose();
    if (this.front.session === seat.model) {
      this.front.session = null;
    }
    seat.model.dispose();
  }

  /** Another widget is in front. One that has no session leaves the last notebook or console in sight. */
  private _bringToFront(widget: Widget | null): void {
    const model = widget ? this.of(widget) : undefined;
    if (model !== undefined) {
      this.front.session = model;
    }
  }

  private readonly _seats = new Map<Widget, Seat>();
}

export namespace Sessions {
  export interface Options {
    notebooks: INotebookTracker | null;
    consoles: IConsoleTracker | null;
    shell: ILabShell | null;
    about: Omit<About, 'notebook'>;
  }
}

function isNotebook(panel: Panel): panel is NotebookPanel {
  return 'context' in panel;
}
