/** The meter in the status bar: one line, one symbol, a button that opens the panel. */
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { OnFrame } from '../frame';
import type { Alarm, Summary } from '../summary';
import { summarise } from '../summary';
import type { INbllm } from '../tokens';

const NAME = 'nbllm';
const HINT = 'Opens the panel.';
/** Shapes differ too, not only colours. */
const SYMBOLS: Record<NonNullable<Alarm>, string> = { hard: '■', breaker: '⚡\ufe0e', soft: '▲', lost: '○' };

/** Draws the session in front, at most once per frame, and touches the page only where something differs. */
export class Meter extends Widget {
  constructor(
    private readonly _nbllm: INbllm,
    private readonly _open: () => void
  ) {
    super();
    this.addClass('jp-nbllm-Meter');
    this._button.className = 'jp-nbllm-Meter-button';
    this._button.type = 'button';
    this._symbol.className = 'jp-nbllm-Meter-symbol';
    this._symbol.setAttribute('aria-hidden', 'true');
    this._button.append(this._symbol, this._text);
    this.node.append(this._button);
    this._button.addEventListener('click', this._open);
    this._frame = new OnFrame(() => {
      this._draw();
    });
    _nbllm.front.changed.connect(this._request, this);
    _nbllm.settingsChanged.connect(this._request, this);
    this._draw();
  }

  /** Whether there is something to show. */
  get isActive(): boolean {
    return this._shown !== null;
  }

  /** Emitted when that changes. */
  get activeChanged(): ISignal<this, void> {
    return this._activeChanged;
  }

  override dispose(): void {
    this._frame.dispose();
    this._button.removeEventListener('click', this._open);
    Signal.clearData(this);
    super.dispose();
  }

  private _request(): void {
    this._frame.request();
  }

  private _draw(): void {
    const before = this._shown;
    const now = summarise(this._nbllm.front.session, this._nbllm.settings);
    this._shown = now;
    if (now !== null) {
      this._write(now, before);
    }
    if ((before === null) !== (now === null)) {
      this._activeChanged.emit();
    }
  }

  private _write(now: Summary, before: Summary | null): void {
    if (now.text !== before?.text) {
      this._text.textContent = now.text;
    }
    if (now.alarm !== before?.alarm) {
      this._symbol.textContent = now.alarm === null ? '' : SYMBOLS[now.alarm];
      this.node.dataset.alarm = now.alarm ?? 'none';
    }
    if (now.title !== before?.title) {
      this._button.title = now.title;
    }
    const label = [`${NAME}: ${now.text}.`, now.warning, HINT].filter(Boolean).join(' ');
    if (label !== this._label) {
      this._label = label;
      this._button.setAttribute('aria-label', label);
    }
  }

  private readonly _button = document.createElement('button');
  private readonly _symbol = document.createElement('span');
  private readonly _text = document.createElement('span');
  private readonly _frame: OnFrame;
  private readonly _activeChanged = new Signal<this, void>(this);
  private _shown: Summary | null = null;
  private _label = '';
}
