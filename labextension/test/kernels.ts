/** A kernel connection for tests: it keeps what is sent, and answers what a test lets it answer. */
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { PromiseDelegate } from '@lumino/coreutils';
import { Signal } from '@lumino/signaling';
import { Connection } from '../src/connection';
import { SessionModel } from '../src/model';
import { running, snapshot } from './states';

type Content = Record<string, unknown>;

export interface Sent {
  channel: string;
  type: string;
  content: Content;
  subshell: string | null;
  reply: (content: Content) => void;
}

export class FakeKernel {
  constructor(
    options: { subshells?: boolean; handleComms?: boolean; comms?: string[]; setting?: string } = {}
  ) {
    this.handleComms = options.handleComms ?? true;
    this.comms = options.comms ?? [];
    this.commsOverSubshells = options.setting ?? 'perCommTarget';
    this.infoReply = { supported_features: options.subshells === false ? [] : ['kernel subshells'] };
    this.info = Promise.resolve(this.infoReply);
  }

  readonly clientId = 'client-1';
  readonly username = 'somebody';
  readonly handleComms: boolean;
  comms: string[];
  commsOverSubshells: string;
  infoReply: Content;
  info: Promise<Content>;
  isDisposed = false;
  connectionStatus = 'connected';
  /** A cell runs: the main shell answers nothing. */
  busy = false;
  interrupts = 0;
  targets = new Map<string, unknown>();
  sent: Sent[] = [];
  private _queued = 0;
  readonly anyMessage = new Signal<this, unknown>(this);
  readonly iopubMessage = new Signal<this, unknown>(this);
  readonly statusChanged = new Signal<this, string>(this);
  readonly connectionStatusChanged = new Signal<this, string>(this);

  /** As the parameter that the code under test wants. */
  get connection(): Kernel.IKernelConnection {
    return this as unknown as Kernel.IKernelConnection;
  }

  registerCommTarget(name: string, callback: unknown): void {
    if (!this.handleComms) {
      throw new Error('Comms are disabled on this kernel connection');
    }
    this.targets.set(name, callback);
  }

  removeCommTarget(name: string): void {
    this.targets.delete(name);
  }

  interrupt(): Promise<void> {
    this.interrupts += 1;
    return Promise.resolve();
  }

  sendShellMessage(message: KernelMessage.IShellMessage) {
    return this._take(message, 'shell');
  }

  sendControlMessage(message: KernelMessage.IControlMessage) {
    return this._take(message, 'control');
  }

  /** What was sent of one type, the contents only. */
  contents(type: string): Content[] {
    return this.sent.filter(one => one.type === type).map(one => one.content);
  }

  /** The id of the comm that was opened last. */
  get opened(): string {
    return String(this.contents('comm_open').at(-1)?.comm_id);
  }

  /** What the comm that was opened last was told, without its greeting. */
  get told(): unknown[] {
    return this.contents('comm_msg')
      .filter(content => content.comm_id === this.opened)
      .map(content => content.data);
  }

  publish(type: string, content: Content, parent = {}, date = ''): void {
    this.iopubMessage.emit({ header: { msg_type: type, date }, parent_header: parent, content });
  }

  /** A cell is sent for execution over this connection, and waits for its turn. Returns the id of the message. */
  queue(cellId: string): string {
    const id = `execute-${(this._queued += 1)}`;
    const header = { msg_type: 'execute_request', msg_id: id };
    this.anyMessage.emit({ msg: { header, metadata: { cellId } }, direction: 'send' });
    return id;
  }

  /** The turn of a message has come, so many seconds after call c9 began. */
  begin(id: string, afterS = -1): void {
    const date = new Date((running().started_at + afterS) * 1000).toISOString();
    this.publish('status', { execution_state: 'busy' }, { msg_id: id }, date);
    this.publish('execute_input', { code: '' }, { msg_id: id }, date);
  }

  end(id: string): void {
    this.publish('status', { execution_state: 'idle' }, { msg_id: id });
  }

  announce(): void {
    this.comms.push('own');
    this.publish('comm_open', {
      comm_id: 'own',
      target_name: 'nbllm',
      data: { v: 1, type: 'announce', nbllm: '0.1.0' }
    });
  }

  say(data: unknown, comm = this.opened): void {
    this.publish('comm_msg', { comm_id: comm, data });
  }

  private _take(message: KernelMessage.IMessage, channel: string) {
    const done = new PromiseDelegate<unknown>();
    const header = message.header as { msg_type: string; subshell_id?: string | null };
    const one: Sent = {
      channel,
      type: header.msg_type,
      content: message.content as Content,
      subshell: header.subshell_id ?? null,
      reply: content => {
        done.resolve({ content: { status: 'ok', ...content } });
      }
    };
    this.sent.push(one);
    if (channel === 'control' || one.subshell !== null || !this.busy) {
      this._answer(one);
    }
    return { done: done.promise };
  }

  private _answer(one: Sent): void {
    if (one.type === 'comm_info_request') {
      one.reply({ comms: Object.fromEntries(this.comms.map(id => [id, { target_name: 'nbllm' }])) });
    } else if (one.type === 'create_subshell_request') {
      one.reply({ subshell_id: 'sub-1' });
    } else if (one.type === 'kernel_info_request') {
      one.reply(this.infoReply);
    } else if (one.type === 'comm_open') {
      this.comms.push(String(one.content.comm_id));
    } else if (one.type === 'comm_close') {
      this.comms = this.comms.filter(id => id !== one.content.comm_id);
    }
  }
}

/** A connection under test; the notebook's path is about.path. */
export class Bench {
  path: string | null = 'folder/a.ipynb';

  connect(kernel: FakeKernel) {
    const model = new SessionModel();
    const about = { front: '0.1.0', app: 'JupyterLab 4.6.6', notebook: () => this.path, pace: () => 5 };
    const connection = new Connection(kernel.connection, model, about);
    this._made.push(connection);
    return { kernel, model, connection };
  }

  /** A session that is live, of a kernel that has loaded nbllm; call c9 of cell-1 is under way. */
  async live(kernel = new FakeKernel({ comms: ['own'] })) {
    const all = this.connect(kernel);
    await settle();
    kernel.say(snapshot({ running: [running({ call_id: 'c9', cell_id: 'cell-1' })] }));
    expect(all.model.phase).toBe('live');
    return all;
  }

  dispose(): void {
    this._made.forEach(connection => {
      connection.dispose();
    });
  }

  private readonly _made: Connection[] = [];
}

/** Let promises settle, and so much time pass. */
export async function settle(ms = 0): Promise<void> {
  await jest.advanceTimersByTimeAsync(ms);
}
