/** The comm of one notebook or console: opened when its kernel has nbllm, opened again after whatever happened to it. */
import type { Kernel } from '@jupyterlab/services';
import { UUID } from '@lumino/coreutils';
import { Executing } from './executing';
import type { Answer, SessionModel } from './model';
import type { ToKernel } from './protocol';
import { TARGET, fromKernelMessage, hello, setPace } from './protocol';
import { Wire, commNews } from './wire';

/** Who speaks: for the greeting. */
export interface About {
  /** This extension's version. */
  front: string;
  /** The application and its version. */
  app: string;
  /** The notebook's path as the server knows it; null for a console. */
  notebook: () => string | null;
  /** Most updates a second. */
  pace: () => number;
}

const STOP_LIMIT_MS = 300;
const STOP_LATE_MS = 3_000;

/** Keeps a session model fed by one kernel connection. */
export class Connection {
  constructor(
    private readonly _kernel: Kernel.IKernelConnection,
    private readonly _model: SessionModel,
    private readonly _about: About
  ) {
    this._wire = new Wire(_kernel);
    this._executing = new Executing(_kernel);
    _kernel.iopubMessage.connect(this._onIOPub, this);
    _kernel.statusChanged.connect(this._onStatus, this);
    _kernel.connectionStatusChanged.connect(this._onConnectionStatus, this);
    if (_kernel.connectionStatus === 'connected') {
      void this._look();
    }
  }

  /** Ask for another number of updates a second. */
  setPace(updatesPerSecond: number): void {
    if (this._id !== null) {
      this._send(setPace(updatesPerSecond));
    }
  }

  /** The notebook has another name: greet again, so that its calls are found under it. */
  rename(): void {
    if (this._id !== null) {
      void this._open();
    }
  }

  /**
   * End a call. Where the kernel cannot hear while a cell runs, that cell is interrupted if this connection saw it begin,
   * and the call is its own.
   */
  async stop(callId: string): Promise<Answer> {
    const hears = this._wire.hearsWhileBusy;
    const answer = this._model.ask({ do: 'stop', call_id: callId }, hears ? STOP_LATE_MS : undefined);
    if (hears) {
      return answer;
    }
    const first = await Promise.race([answer, later(STOP_LIMIT_MS)]);
    if (first !== null) {
      return first;
    }
    const call = this._model.state?.running.find(one => one.call_id === callId);
    if (call === undefined) {
      return { ok: true, message: 'The call is over.', data: null };
    }
    if (!this._executing.owns(call)) {
      const message =
        'The kernel cannot hear this while a cell runs, and that cell is not known to have made the call.';
      return { ok: false, message: `${message} Interrupt the kernel to end the cell.`, data: null };
    }
    await this._kernel.interrupt();
    return {
      ok: true,
      message: 'The cell was interrupted: its kernel hears nothing else while it runs.',
      data: null
    };
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    this._kernel.iopubMessage.disconnect(this._onIOPub, this);
    this._kernel.statusChanged.disconnect(this._onStatus, this);
    this._kernel.connectionStatusChanged.disconnect(this._onConnectionStatus, this);
    this._close();
    this._wire.dispose();
    this._executing.dispose();
    this._model.detach();
  }

  private _onIOPub(_: unknown, message: Parameters<typeof commNews>[0]): void {
    const news = commNews(message);
    if (news === null) {
      return;
    }
    if (news.kind === 'open') {
      if (news.target === TARGET && isAnnounce(news.data)) {
        void this._open();
      }
    } else if (news.id === this._id) {
      if (news.kind === 'msg') {
        this._model.receive(news.data);
      } else {
        this._id = null;
        this._model.detach();
      }
    }
  }

  private _onStatus(_: unknown, status: Kernel.Status): void {
    if (
      status === 'restarting' ||
      status === 'autorestarting' ||
      status === 'dead' ||
      status === 'terminating'
    ) {
      this._id = null;
      this._wire.reset();
      this._executing.forget();
      this._model.detach();
      this._restarted = status !== 'dead' && status !== 'terminating';
    } else if (this._restarted && status === 'idle') {
      // A kernel whose startup loads nbllm announces it before anybody listens.
      this._restarted = false;
      void this._look();
    }
  }

  private _onConnectionStatus(_: unknown, status: Kernel.ConnectionStatus): void {
    if (status === 'connected') {
      void this._look();
    } else {
      // What a cell does meanwhile is not heard.
      this._executing.forget();
      this._model.lose();
    }
  }

  /** Find out whether the kernel has nbllm, and whether it still knows this comm. */
  private async _look(): Promise<void> {
    const looked = (this._looked += 1);
    const opened = this._opened;
    const ids = await this._wire.commIds();
    // A kernel that announced itself meanwhile was greeted: what it said before that is old.
    if (this._disposed || ids === null || looked !== this._looked || opened !== this._opened) {
      return;
    }
    if (this._id !== null && ids.includes(this._id)) {
      this._model.resume();
    } else if (ids.length > 0) {
      await this._open();
    } else if (this._id !== null) {
      this._id = null;
      this._model.detach();
    }
  }

  private async _open(): Promise<void> {
    const opened = (this._opened += 1);
    await this._wire.findSubshell();
    if (this._disposed || opened !== this._opened) {
      return;
    }
    this._close();
    const id = UUID.uuid4();
    this._id = id;
    this._model.attach({
      send: message => {
        if (this._id === id) {
          this._send(message);
        }
      }
    });
    const { front, app } = this._about;
    const greeting = { front, app, notebook: this._about.notebook(), updates_per_s: this._about.pace() };
    this._wire.open(id, hello(greeting));
  }

  private _send(message: ToKernel): void {
    if (this._id !== null) {
      this._wire.send(this._id, message);
    }
  }

  private _close(): void {
    if (this._id !== null) {
      this._wire.close(this._id);
      this._id = null;
    }
  }

  private readonly _wire: Wire;
  private readonly _executing: Executing;
  private _id: string | null = null;
  private _looked = 0;
  private _opened = 0;
  private _restarted = false;
  private _disposed = false;
}

function isAnnounce(data: unknown): boolean {
  try {
    return fromKernelMessage(data).type === 'announce';
  } catch {
    console.warn(
      'nbllm: the kernel announced itself in a way that this extension does not know. Update both and reload the page.'
    );
    return false;
  }
}

function later(ms: number): Promise<null> {
  return new Promise(resolve => setTimeout(resolve, ms, null));
}
