/**
 * What is known of one kernel's session, and which session is in front: state and signals, no drawing, no network, no Jupyter.
 */
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import { Refused, own } from './check';
import type {
  Call,
  Change,
  KernelFacts,
  Result,
  ResultData,
  Snapshot,
  State,
  ToKernel,
  Wish
} from './protocol';
import { MOST_CALLS, VERSION, askSnapshot, command, fromKernelMessage } from './protocol';

/**
 * none: this kernel has no nbllm, or there is no kernel; waiting: asked, no answer yet; live: the numbers are true now;
 * lost: the connection is down and the numbers are the last ones.
 */
export type Phase = 'none' | 'waiting' | 'live' | 'lost';

/** What became of a command: a sentence for the user, and what it brought. */
export interface Answer {
  ok: boolean;
  message: string;
  data: ResultData | null;
}

/** How messages reach the kernel. */
export interface Sender {
  send(message: ToKernel): void;
}

const ASK_AGAIN_MS = 2_000;
const ANSWER_LIMIT_MS = 10_000;
const NOT_YET = 'The kernel has not answered yet.';

/** The session of one kernel, as one notebook or console sees it. */
export class SessionModel {
  /** Emitted after each change, with what changed; views draw at the next animation frame. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get phase(): Phase {
    return this._phase;
  }

  /** The numbers; null before the first snapshot. Objects in it are never changed, only replaced. */
  get state(): State | null {
    return this._state;
  }

  get kernel(): KernelFacts | null {
    return this._kernel;
  }

  /** The tag that rows of this model's own notebook carry; null in a console. */
  get notebook(): string | null {
    return this._notebook;
  }

  /** Begin to speak with a kernel: what is sent goes there. */
  attach(sender: Sender): void {
    this._forget('The kernel was asked anew.');
    this._sender = sender;
    this._set('waiting');
  }

  /** The connection is down for now: the last numbers stay in sight, marked. */
  lose(): void {
    if (this._phase === 'live' || this._phase === 'waiting') {
      this._set(this._state === null ? 'waiting' : 'lost');
    }
  }

  /** The connection is up again and the kernel is the same: ask for what was missed. */
  resume(): void {
    if (this._sender !== null) {
      this._askSnapshot();
    }
  }

  /** There is no nbllm there any more: kernel restarted, ended or changed, or the extension unloaded. */
  detach(): void {
    this._forget('The kernel has restarted or ended.');
    this._set('none');
  }

  /** Take in what the kernel sent. What is no message of this version is ignored, with one warning. */
  receive(data: unknown): void {
    if (this._sender === null) {
      return;
    }
    try {
      const message = fromKernelMessage(data);
      if (message.type === 'snapshot') {
        this._replace(message);
      } else if (message.type === 'delta') {
        this._advance(message.seq, message.state);
      } else if (message.type === 'result') {
        this._settle(message);
      }
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      this._warn(data, error.message);
    }
  }

  /**
   * Ask the kernel for something. Always answered: by the kernel, or by why it was not, after at most limitMs.
   * late: what to do with an answer that comes after that, and with why none will come.
   */
  async ask(wish: Wish, limitMs = ANSWER_LIMIT_MS, late?: (answer: Answer) => void): Promise<Answer> {
    const sender = this._sender;
    if (sender === null) {
      return failed('nbllm is not loaded in this kernel: run %load_ext nbllm.');
    }
    const id = `k${(this._asked += 1)}`;
    let message: ToKernel;
    try {
      message = command(id, wish);
    } catch (error) {
      return failed(error instanceof Refused ? `Not sent: ${error.message}.` : String(error));
    }
    return new Promise(resolve => {
      const limit = setTimeout(() => {
        if (late === undefined) {
          this._waiting.delete(id);
          resolve(failed(NOT_YET));
        } else {
          this._waiting.set(id, late);
          resolve(failed(`${NOT_YET} A notification will say so when it does.`));
        }
      }, limitMs);
      this._waiting.set(id, answer => {
        clearTimeout(limit);
        resolve(answer);
      });
      sender.send(message);
    });
  }

  dispose(): void {
    this._forget('The notebook was closed.');
    this._phase = 'none';
    Signal.clearData(this);
  }

  private _set(phase: Phase): void {
    this._phase = phase;
    this._changed.emit();
  }

  private _forget(why: string): void {
    this._sender = null;
    this._state = null;
    this._kernel = null;
    this._notebook = null;
    this._missing = false;
    const waiting = [...this._waiting.values()];
    this._waiting.clear();
    waiting.forEach(settle => {
      settle(failed(why));
    });
  }

  private _replace(message: Snapshot): void {
    this._seq = message.seq;
    this._missing = false;
    this._kernel = message.kernel;
    this._notebook = message.notebook;
    this._state = message.state;
    this._set('live');
  }

  private _advance(seq: number, change: Change): void {
    if (this._state === null || this._missing || seq > this._seq + 1) {
      // One message was lost or is late: the next snapshot has everything. Asked again when that is lost too.
      if (!this._missing || Date.now() - this._askedAtMs > ASK_AGAIN_MS) {
        this._askSnapshot();
      }
      return;
    }
    if (seq <= this._seq) {
      return; // known already
    }
    this._seq = seq;
    this._state = merged(this._state, change);
    this._set('live');
  }

  private _settle(message: Result): void {
    const settle = this._waiting.get(message.id);
    this._waiting.delete(message.id);
    settle?.({ ok: message.ok, message: message.message, data: message.data });
  }

  private _askSnapshot(): void {
    this._missing = true;
    this._askedAtMs = Date.now();
    this._sender?.send(askSnapshot());
  }

  private _warn(data: unknown, why: string): void {
    if (this._warned) {
      return;
    }
    this._warned = true;
    const version = typeof data === 'object' && data !== null ? own(data, 'v') : undefined;
    const other = typeof version === 'number' && version !== VERSION;
    console.warn(
      other
        ? `nbllm: the kernel speaks version ${version} of the protocol and this extension version ${VERSION}. Update both and reload the page.`
        : `nbllm: a message from the kernel was ignored: ${why}.`
    );
  }

  private _phase: Phase = 'none';
  private _state: State | null = null;
  private _kernel: KernelFacts | null = null;
  private _notebook: string | null = null;
  private _sender: Sender | null = null;
  private _seq = 0;
  private _missing = false;
  private _askedAtMs = 0;
  private _asked = 0;
  private _warned = false;
  private readonly _waiting = new Map<string, (answer: Answer) => void>();
  private readonly _changed = new Signal<this, void>(this);
}

/** Return the state after a change; the members that did not change are the same objects. */
export function merged(state: State, change: Change): State {
  const { calls, ...members } = change;
  const next = { ...state, ...members };
  if (calls !== undefined && calls.length > 0) {
    next.calls = mergedCalls(state.calls, calls);
  }
  return next;
}

/** Return the rows after new and changed ones came in: newest first, at most so many as a state holds. */
function mergedCalls(rows: readonly Call[], news: readonly Call[]): Call[] {
  const byId = new Map<string, Call>();
  [...rows, ...news].forEach(row => byId.set(row.call_id, row));
  return [...byId.values()].sort(newestFirst).slice(0, MOST_CALLS);
}

function newestFirst(a: Call, b: Call): number {
  return b.started_at - a.started_at || (a.call_id < b.call_id ? 1 : -1);
}

function failed(message: string): Answer {
  return { ok: false, message, data: null };
}

/** The session of the notebook or console in front. */
export class Front {
  /** Emitted when another session is in front, and when the one in front changes. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The session in front; null where no notebook or console was ever in front, or the last one was closed. */
  get session(): SessionModel | null {
    return this._session;
  }

  set session(session: SessionModel | null) {
    if (session === this._session) {
      return;
    }
    this._session?.changed.disconnect(this._onChanged, this);
    this._session = session;
    session?.changed.connect(this._onChanged, this);
    this._changed.emit();
  }

  private _onChanged(): void {
    this._changed.emit();
  }

  private _session: SessionModel | null = null;
  private readonly _changed = new Signal<this, void>(this);
}
