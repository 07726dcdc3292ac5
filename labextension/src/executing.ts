/** Which cell a kernel really executes, as far as one connection can tell. JupyterLab calls queued cells running too. */
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { Running } from './protocol';

interface Execution {
  messageId: string;
  /** Null for what this connection did not ask for: another page, another panel, or this page before it was reloaded. */
  cellId: string | null;
  /** By the kernel's clock, in Unix seconds. */
  beganAt: number;
}

/** Listens to what is sent for execution, to what begins, and to what ends. */
export class Executing {
  constructor(private readonly _kernel: Kernel.IKernelConnection) {
    _kernel.anyMessage.connect(this._onAny, this);
    _kernel.iopubMessage.connect(this._onIOPub, this);
  }

  /** Whether a call was made by the execution that runs now: by its cell, and not by an earlier run of that cell. */
  owns({ cell_id, started_at }: Pick<Running, 'cell_id' | 'started_at'>): boolean {
    const now = this._now;
    return now !== null && cell_id !== null && cell_id === now.cellId && started_at >= now.beganAt;
  }

  /** Nothing is known any more: the kernel is another process, or messages may have been missed. */
  forget(): void {
    this._asked.clear();
    this._now = null;
  }

  dispose(): void {
    this._kernel.anyMessage.disconnect(this._onAny, this);
    this._kernel.iopubMessage.disconnect(this._onIOPub, this);
    this.forget();
  }

  private _onAny(_: unknown, { msg, direction }: Kernel.IAnyMessageArgs): void {
    if (direction !== 'send' || msg.header.msg_type !== 'execute_request') {
      return;
    }
    const { cellId } = msg.metadata as { cellId?: unknown };
    if (typeof cellId === 'string') {
      this._asked.set(msg.header.msg_id, cellId);
    }
  }

  private _onIOPub(_: unknown, message: KernelMessage.IIOPubMessage): void {
    const type: string = message.header.msg_type;
    const { msg_id: messageId } = message.parent_header as { msg_id?: string };
    if (messageId === undefined) {
      return;
    }
    if (type === 'execute_input') {
      const beganAt = Date.parse(message.header.date) / 1000;
      this._now = { messageId, cellId: this._asked.get(messageId) ?? null, beganAt };
    } else if (
      type === 'status' &&
      (message.content as { execution_state?: string }).execution_state === 'idle'
    ) {
      this._asked.delete(messageId);
      if (this._now?.messageId === messageId) {
        this._now = null;
      }
    }
  }

  /** The cells of what was sent and has not ended, by the ids of the requests. */
  private readonly _asked = new Map<string, string>();
  private _now: Execution | null = null;
}
