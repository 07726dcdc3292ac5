/**
 * The messages of a comm on one kernel connection, written and read one by one.
 *
 * Not Kernel.IComm, for two reasons. Of several connections to one kernel only the first may have comms in JupyterLab, and
 * two notebooks on one kernel have two connections; every connection sees all messages on iopub, though. And IComm finds out
 * about subshells by a request that waits for the running cell, while a page that is reloaded in mid-stream should be live at once.
 */
import type { Kernel } from '@jupyterlab/services';
import { KernelMessage } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';
import { TARGET } from './protocol';

/** What arrives on iopub that is about comms. */
export type CommNews =
  | { kind: 'open'; id: string; target: string; data: unknown }
  | { kind: 'msg'; id: string; data: unknown }
  | { kind: 'close'; id: string };

const BUSY_AFTER_MS = 1_000;
const CONTROL_LIMIT_MS = 2_000;

/** Sends the messages of comms through a kernel connection, over a subshell of its own where the kernel has subshells. */
export class Wire {
  constructor(private readonly _kernel: Kernel.IKernelConnection) {
    // JupyterLab closes a comm of an unknown target and complains: this one is known, and read by who listens on iopub.
    if (_kernel.handleComms) {
      _kernel.registerCommTarget(TARGET, known);
    }
  }

  /** Whether the kernel hears this wire while a cell runs. */
  get hearsWhileBusy(): boolean {
    return this._subshell !== null;
  }

  /** Return the ids of the kernel's open comms of nbllm; null when the kernel or the connection went away before it answered. */
  async commIds(): Promise<string[] | null> {
    const first = this._askCommIds();
    if ((await inTime(first, BUSY_AFTER_MS)) !== LATE) {
      return first;
    }
    // A cell runs, which the main shell waits for: on a subshell the answer comes now.
    await this.findSubshell();
    return this._subshell === null ? first : Promise.race([first, this._askCommIds()]);
  }

  /** Make a subshell, if the kernel has them and the user lets comms use them. Does nothing the second time. */
  findSubshell(): Promise<void> {
    this._searched ??= this._searchSubshell();
    return this._searched;
  }

  open(id: string, data: JSONObject): void {
    const content = { comm_id: id, target_name: TARGET, data };
    this._shell(
      KernelMessage.createMessage<KernelMessage.ICommOpenMsg<'shell'>>({
        ...this._head('comm_open'),
        content
      })
    );
  }

  send(id: string, data: JSONObject): void {
    const content = { comm_id: id, data };
    this._shell(
      KernelMessage.createMessage<KernelMessage.ICommMsgMsg<'shell'>>({ ...this._head('comm_msg'), content })
    );
  }

  /** Close a comm. Not over the subshell, which may be given back before it has read this. */
  close(id: string): void {
    const content = { comm_id: id, data: {} };
    const head = { ...this._head('comm_close'), subshellId: null };
    this._shell(KernelMessage.createMessage<KernelMessage.ICommCloseMsg<'shell'>>({ ...head, content }));
  }

  /** The kernel process is another one: the subshell of the old one is gone. */
  reset(): void {
    this._subshell = null;
    this._searched = null;
  }

  /** Give the subshell back. */
  dispose(): void {
    if (this._kernel.isDisposed) {
      return;
    }
    if (this._kernel.handleComms) {
      this._kernel.removeCommTarget(TARGET, known);
    }
    if (this._subshell !== null) {
      const head = {
        ...this._head('delete_subshell_request'),
        channel: 'control' as const,
        subshellId: null
      };
      const content = { subshell_id: this._subshell };
      void this._control(
        KernelMessage.createMessage<KernelMessage.IDeleteSubshellRequestMsg>({ ...head, content }),
        false
      );
      this._subshell = null;
    }
  }

  private async _searchSubshell(): Promise<void> {
    // The user's setting for the comms of widgets holds here too.
    const setting: string | undefined = this._kernel.commsOverSubshells;
    if (setting === undefined || setting === 'disabled') {
      return;
    }
    const known = await inTime(this._kernel.info, BUSY_AFTER_MS);
    const info = known === LATE ? await this._infoOfBusyKernel() : known;
    if (info?.supported_features?.includes('kernel subshells') !== true) {
      return;
    }
    const head = { ...this._head('create_subshell_request'), channel: 'control' as const, subshellId: null };
    const message = KernelMessage.createMessage<KernelMessage.ICreateSubshellRequestMsg>({
      ...head,
      content: {}
    });
    const reply = await this._control(message, true);
    this._subshell = (reply?.content as { subshell_id?: string } | undefined)?.subshell_id ?? null;
  }

  /** Return what the kernel says of itself on the control channel, which is read while a cell runs. */
  private async _infoOfBusyKernel(): Promise<KernelMessage.IInfoReply | null> {
    // Kernels take kernel_info_request on the control channel too; JupyterLab's types know it on shell only.
    const message = KernelMessage.createMessage<KernelMessage.IInfoRequestMsg>({
      ...this._head('kernel_info_request'),
      subshellId: null,
      content: {}
    }) as unknown as KernelMessage.IControlMessage;
    message.channel = 'control';
    const reply = await this._control(message, true);
    return (reply?.content as unknown as KernelMessage.IInfoReply | undefined) ?? null;
  }

  private async _askCommIds(): Promise<string[] | null> {
    const content = { target_name: TARGET };
    const head = this._head('comm_info_request');
    try {
      const request = KernelMessage.createMessage<KernelMessage.ICommInfoRequestMsg>({ ...head, content });
      const reply = await this._kernel.sendShellMessage(request, true, true).done;
      const found = reply as KernelMessage.ICommInfoReplyMsg | undefined;
      return found?.content.status === 'ok' ? Object.keys(found.content.comms) : [];
    } catch {
      return null;
    }
  }

  private _head<T extends string>(msgType: T) {
    return {
      msgType,
      channel: 'shell' as const,
      username: this._kernel.username,
      session: this._kernel.clientId,
      subshellId: this._subshell
    };
  }

  private _shell(message: KernelMessage.IShellMessage): void {
    if (this._kernel.isDisposed) {
      return;
    }
    try {
      this._kernel.sendShellMessage(message, false, true);
    } catch {
      // The kernel is restarting or gone, which its status says to who has to know.
    }
  }

  /** Send on the control channel; the answer, null where none came in time. */
  private async _control(
    message: KernelMessage.IControlMessage,
    reply: boolean
  ): Promise<KernelMessage.IMessage | null> {
    try {
      const answer = this._kernel.sendControlMessage(message, reply, true).done;
      const came = reply ? await inTime(answer, CONTROL_LIMIT_MS) : LATE;
      return came === LATE ? null : came;
    } catch {
      return null;
    }
  }

  private _subshell: string | null = null;
  private _searched: Promise<void> | null = null;
}

const LATE = Symbol('late');

/** Return what a promise brings, or LATE when it takes longer. */
async function inTime<T>(promise: Promise<T>, limitMs: number): Promise<T | typeof LATE> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<typeof LATE>(resolve => {
    timer = setTimeout(resolve, limitMs, LATE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Return what an iopub message says about comms; null for all others. */
export function commNews(message: KernelMessage.IIOPubMessage): CommNews | null {
  const type: string = message.header.msg_type;
  if (type !== 'comm_msg' && type !== 'comm_open' && type !== 'comm_close') {
    return null;
  }
  const content = message.content as { comm_id: string; target_name?: string; data?: unknown };
  const id = content.comm_id;
  if (type === 'comm_msg') {
    return { kind: 'msg', id, data: content.data };
  }
  return type === 'comm_open'
    ? { kind: 'open', id, target: content.target_name ?? '', data: content.data }
    : { kind: 'close', id };
}

function known(): void {
  // What the kernel announces is read from iopub, by every connection.
}
