/** The plugin of the badges: a small mark below the number of each cell whose outputs show calls. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import type { Cell, CodeCell, ICodeCellModel } from '@jupyterlab/cells';
import type { Notebook, NotebookPanel } from '@jupyterlab/notebook';
import { INotebookTracker } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';
import { PanelLayout, Widget } from '@lumino/widgets';
import { mark } from './badge';
import type { Mark } from './badge';
import { OnFrame } from './frame';
import type { Badge } from './protocol';
import { badgeOf } from './protocol';
import { INbllm } from './tokens';

export const badges: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:badges',
  description: 'Marks cells that called a model with model, cost and source.',
  autoStart: true,
  requires: [INbllm, INotebookTracker],
  activate: (_, nbllm: INbllm, notebooks: INotebookTracker) => {
    const add = (panel: NotebookPanel) => {
      const marked = new NotebookBadges(panel.content, nbllm);
      panel.disposed.connect(() => {
        marked.dispose();
      });
    };
    notebooks.forEach(add);
    notebooks.widgetAdded.connect((_, panel) => {
      add(panel);
    });
  }
};

const MOST_READ = 200;

/** Keeps the badges of one notebook true. They are read from the outputs' metadata; nothing is ever written. */
export class NotebookBadges implements IDisposable {
  constructor(
    private readonly _notebook: Notebook,
    private readonly _nbllm: Pick<INbllm, 'settings' | 'settingsChanged'>
  ) {
    _notebook.modelChanged.connect(this._onModel, this);
    _nbllm.settingsChanged.connect(this._onSettings, this);
    this._onModel();
  }

  get isDisposed(): boolean {
    return this._frame.isDisposed;
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._frame.dispose();
    this._notebook.modelChanged.disconnect(this._onModel, this);
    this._nbllm.settingsChanged.disconnect(this._onSettings, this);
    this._followed?.changed.disconnect(this._onCells, this);
    this._stale.clear();
  }

  private _onModel(): void {
    this._followed?.changed.disconnect(this._onCells, this);
    this._followed = this._notebook.model?.cells ?? null;
    this._followed?.changed.connect(this._onCells, this);
    this._onCells();
  }

  /** Cells came, went or were replaced: those that are not known yet are followed from now on. */
  private _onCells(): void {
    this._notebook.widgets.forEach(cell => {
      if (isCode(cell) && !this._known.has(cell)) {
        this._follow(cell);
      }
    });
  }

  private _follow(cell: CodeCell): void {
    this._known.add(cell);
    const { outputs } = cell.model;
    const changed = () => {
      this._ask(cell);
    };
    outputs.changed.connect(changed);
    outputs.stateChanged.connect(changed);
    cell.disposed.connect(() => {
      outputs.changed.disconnect(changed);
      outputs.stateChanged.disconnect(changed);
      this._stale.delete(cell);
    });
    // A cell that was never in sight has no elements yet.
    void cell.ready.then(changed);
  }

  private _onSettings(): void {
    this._notebook.widgets.forEach(cell => {
      if (isCode(cell)) {
        this._ask(cell);
      }
    });
  }

  private _ask(cell: CodeCell): void {
    this._stale.add(cell);
    this._frame.request();
  }

  private _draw(): void {
    const { badges, currencyDecimals } = this._nbllm.settings;
    const cells = [...this._stale];
    this._stale.clear();
    cells
      .filter(cell => !cell.isDisposed)
      .forEach(cell => {
        draw(cell, badges ? mark(callsOf(cell.model), currencyDecimals) : null);
      });
  }

  private readonly _frame = new OnFrame(() => {
    this._draw();
  });
  private readonly _known = new WeakSet<Cell>();
  private readonly _stale = new Set<CodeCell>();
  private _followed: NonNullable<Notebook['model']>['cells'] | null = null;
}

function isCode(cell: Cell): cell is CodeCell {
  return cell.model.type === 'code';
}

/** Return the calls that the outputs of a cell show. */
export function callsOf({ outputs }: Pick<ICodeCellModel, 'outputs'>): Badge[] {
  const calls: Badge[] = [];
  const last = Math.min(outputs.length, MOST_READ);
  for (let index = 0; index < last; index++) {
    const call = badgeOf(outputs.get(index).metadata);
    if (call !== null) {
      calls.push(call);
    }
  }
  return calls;
}

function draw({ inputArea }: CodeCell, words: Mark | null): void {
  const layout = inputArea?.layout;
  if (!(layout instanceof PanelLayout) || !inputArea) {
    return;
  }
  const there = layout.widgets.find(widget => widget instanceof BadgeWidget);
  if (words === null) {
    there?.dispose();
  } else if (there === undefined) {
    layout.addWidget(new BadgeWidget(inputArea.promptNode, words));
  } else {
    there.words = words;
  }
}

/**
 * A mark as an element; it lies over the column of the prompt and takes no room of its own. It is not there for the mouse, as
 * cells are selected and dragged by their prompt: the tooltip is the prompt's.
 */
export class BadgeWidget extends Widget {
  constructor(
    private readonly _prompt: HTMLElement,
    words: Mark
  ) {
    super();
    this.addClass('jp-nbllm-Badge');
    // An image with a name: its few letters are read as the whole sentence.
    this.node.setAttribute('role', 'img');
    const line = document.createElement('span');
    line.className = 'jp-nbllm-Badge-line';
    line.append(this._text);
    this.node.append(line, this._more);
    this._text.className = 'jp-nbllm-Badge-text';
    this._more.className = 'jp-nbllm-Badge-more';
    this.words = words;
  }

  set words(words: Mark) {
    this._text.textContent = words.text;
    this._more.textContent = words.more;
    this.node.dataset.source = words.source;
    this.node.setAttribute('aria-label', words.label);
    this._prompt.title = words.title;
  }

  override dispose(): void {
    this._prompt.removeAttribute('title');
    super.dispose();
  }

  private readonly _text = document.createElement('span');
  private readonly _more = document.createElement('span');
}
