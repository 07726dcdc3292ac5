/** The side panel: takes what the model knows to the view, at most once a frame, and only while it is in sight. */
import type { ISessionContext } from '@jupyterlab/apputils';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';
import { OnFrame } from '../frame';
import { meterIcon } from '../icons';
import type { Answer, SessionModel } from '../model';
import type { Section } from '../settings';
import type { INbllm } from '../tokens';
import { Commands } from '../tokens';
import type { Deeds, Facts } from './facts';
import type { Folds } from './folds';
import { PanelView } from './panelview';
import { placesOf, same } from './places';

export namespace Panel {
  export interface Options {
    nbllm: INbllm;
    commands: CommandRegistry;
    folds: Folds;
    /** Puts text on the clipboard. */
    copy: (text: string) => void;
  }
}

export class Panel extends ReactWidget {
  constructor({ nbllm, commands, folds, copy }: Panel.Options) {
    super();
    this._nbllm = nbllm;
    this._commands = commands;
    this._folds = folds;
    this._copy = copy;
    this.id = 'nbllm-panel';
    this.addClass('jp-nbllm-Panel');
    this.title.icon = meterIcon;
    this.title.caption = 'LLM calls';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'LLM calls');
    // Whoever opens it with the keyboard is in it.
    this.node.tabIndex = -1;
    nbllm.front.changed.connect(this.refresh, this);
    nbllm.settingsChanged.connect(this.refresh, this);
    void folds.read().then(folded => {
      this._folded = folded;
      this._frame.request();
    });
  }

  /** Draw at the next frame, if the panel is in sight. */
  refresh(): void {
    this._frame.request();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._follow(undefined);
    this._frame.dispose();
    Signal.clearData(this);
    super.dispose();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.focus({ preventScroll: true });
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._frame.request();
  }

  protected override render() {
    this._follow(this._widget());
    return <PanelView facts={this._facts()} deeds={this._deeds} />;
  }

  private get _session(): SessionModel | null {
    return this._nbllm.front.session;
  }

  private _widget(): Widget | undefined {
    return this._session === null ? undefined : this._nbllm.widgetOf(this._session);
  }

  /** A kernel's restarts and a notebook's names are news that its model does not bring. */
  private _follow(widget: Widget | undefined): void {
    if (widget === this._followed) {
      return;
    }
    this._number += 1;
    if (this._followed !== undefined && !this._followed.isDisposed) {
      contextOf(this._followed)?.statusChanged.disconnect(this.refresh, this);
      contextOf(this._followed)?.kernelChanged.disconnect(this.refresh, this);
      this._followed.title.changed.disconnect(this.refresh, this);
    }
    this._followed = widget;
    if (widget !== undefined) {
      contextOf(widget)?.statusChanged.connect(this.refresh, this);
      contextOf(widget)?.kernelChanged.connect(this.refresh, this);
      widget.title.changed.connect(this.refresh, this);
    }
  }

  private _facts(): Facts {
    const session = this._session;
    const widget = this._followed;
    this._places = same(this._places, placesOf(widget));
    return {
      session: this._number,
      title: widget?.title.label ?? null,
      phase: session?.phase ?? 'none',
      kernel: (widget && contextOf(widget)?.session?.kernel?.status) ?? null,
      state: session?.state ?? null,
      notebook: session?.notebook ?? null,
      places: this._places,
      settings: this._nbllm.settings,
      folded: this._folded
    };
  }

  private readonly _deeds: Deeds = {
    stop: callId => this._with(session => this._nbllm.stop(session, callId)),
    why: callId => this._with(session => session.ask({ do: 'why', call_id: callId })),
    jump: (cellId, notebook) => {
      if (this._commands.hasCommand(Commands.jumpToCell)) {
        void this._commands.execute(Commands.jumpToCell, { cellId, notebook });
      }
    },
    copy: text => {
      this._copy(text);
    },
    fold: (section, folded) => {
      const others = this._folded.filter(one => one !== section);
      this._folded = folded ? [...others, section] : others;
      this._folds.write(this._folded);
      this._frame.request();
    }
  };

  private async _with(deed: (session: SessionModel) => Promise<Answer>): Promise<Answer> {
    const session = this._session;
    return session === null ? { ok: false, message: 'No notebook is in front.', data: null } : deed(session);
  }

  private readonly _nbllm: INbllm;
  private readonly _commands: CommandRegistry;
  private readonly _folds: Folds;
  private readonly _copy: (text: string) => void;
  private readonly _frame = new OnFrame(() => {
    if (this.isVisible) {
      this.update();
    }
  });
  private _folded: readonly Section[] = [];
  private _followed: Widget | undefined = undefined;
  private _number = 0;
  private _places: ReadonlyMap<string, string> = new Map();
}

function contextOf(widget: Widget): ISessionContext | undefined {
  return (widget as Widget & { sessionContext?: ISessionContext }).sessionContext;
}
