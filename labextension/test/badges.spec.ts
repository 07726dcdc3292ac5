import type { Notebook } from '@jupyterlab/notebook';
import { Signal } from '@lumino/signaling';
import { PanelLayout, Widget } from '@lumino/widgets';
import { NotebookBadges, callsOf } from '../src/badges';
import type { Settings } from '../src/settings';
import { DEFAULTS } from '../src/settings';
import { badge } from './states';

type Metadata = Record<string, unknown>;

/** The outputs of a cell: a list of metadata with the signals of JupyterLab's model. */
class Outputs {
  readonly changed = new Signal<this, unknown>(this);
  readonly stateChanged = new Signal<this, unknown>(this);
  constructor(private _all: Metadata[]) {}

  get length() {
    return this._all.length;
  }

  get(index: number) {
    return { metadata: this._all[index] };
  }

  set(...all: Metadata[]) {
    this._all = all;
    this.changed.emit({});
  }
}

/** A cell; one that was never in sight has no elements yet. */
class Cell extends Widget {
  readonly model: { type: string; outputs: Outputs };
  inputArea: (Widget & { promptNode?: HTMLElement }) | null = null;
  appear!: () => void;
  readonly ready = new Promise<void>(resolve => {
    this.appear = () => {
      this.inputArea = new Widget();
      this.inputArea.layout = new PanelLayout();
      this.inputArea.promptNode = document.createElement('div');
      resolve();
    };
  });

  constructor(type: string, ...all: Metadata[]) {
    super();
    this.model = { type, outputs: new Outputs(all) };
  }

  get badge() {
    return this.inputArea?.node.querySelector<HTMLElement>('.jp-nbllm-Badge') ?? null;
  }

  get tooltip() {
    return this.inputArea?.promptNode?.title;
  }

  override dispose() {
    this.inputArea?.dispose();
    super.dispose();
  }
}

function book(...widgets: Cell[]) {
  const notebook = { widgets, model: { cells: { changed: new Signal<object, void>({}) } } };
  const modelChanged = new Signal<object, void>({});
  const settingsChanged = new Signal<object, void>({});
  const nbllm = { settings: DEFAULTS, settingsChanged };
  const badges = new NotebookBadges({ ...notebook, modelChanged } as unknown as Notebook, nbllm);
  return {
    badges,
    nbllm,
    settings: (some: Partial<Settings>) => {
      nbllm.settings = { ...DEFAULTS, ...some };
      settingsChanged.emit();
    },
    insert: (cell: Cell) => {
      widgets.push(cell);
      notebook.model.cells.changed.emit();
    }
  };
}

/** Wait until what was asked for is drawn. */
async function drawn() {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise(resolve => requestAnimationFrame(resolve));
  }
}

const meta = (some = {}) => ({ nbllm: badge(some) });

describe('the badge of a cell', () => {
  it('is there when a notebook is opened, as soon as the cell is in sight', async () => {
    const cell = new Cell('code', {}, meta());
    book(cell);
    await drawn();
    expect(cell.badge).toBeNull();
    cell.appear();
    await drawn();
    expect(cell.badge?.textContent).toBe('$0.0012large');
    expect(cell.badge?.getAttribute('aria-label')).toContain('sim/large');
    expect(cell.tooltip).toContain('sim/large');
    expect(cell.badge?.getAttribute('role')).toBe('img');
  });

  it('comes with an output, changes with it, and goes when outputs are cleared', async () => {
    const cell = new Cell('code');
    cell.appear();
    book(cell);
    await drawn();
    expect(cell.badge).toBeNull();
    cell.model.outputs.set(meta());
    await drawn();
    const first = cell.badge;
    expect(first?.dataset.source).toBe('model');
    cell.model.outputs.set(meta({ source: 'cache', cost_usd: '0' }));
    await drawn();
    expect(cell.badge).toBe(first);
    expect(cell.badge?.textContent).toBe('cachelarge');
    cell.model.outputs.set();
    await drawn();
    expect(cell.badge).toBeNull();
    expect(cell.tooltip).toBe('');
  });

  it('is drawn once however often the outputs change before the next frame', async () => {
    const cell = new Cell('code');
    cell.appear();
    book(cell);
    await drawn();
    const read = jest.spyOn(cell.model.outputs, 'get');
    for (let turn = 0; turn < 100; turn++) {
      cell.model.outputs.set(meta());
    }
    await drawn();
    expect(read.mock.calls.length).toBe(1);
    expect(cell.inputArea?.node.querySelectorAll('.jp-nbllm-Badge')).toHaveLength(1);
  });

  it('comes to cells that are inserted later, and only to code', async () => {
    const { insert } = book();
    const [code, text] = [new Cell('code', meta()), new Cell('markdown', meta())];
    [code, text].forEach(cell => {
      cell.appear();
      insert(cell);
    });
    await drawn();
    expect(code.badge).not.toBeNull();
    expect(text.badge).toBeNull();
  });

  it('follows the settings', async () => {
    const cell = new Cell('code', meta({ cost_usd: '0.43219' }));
    cell.appear();
    const { settings } = book(cell);
    settings({ currencyDecimals: 3 });
    await drawn();
    expect(cell.badge?.textContent).toBe('$0.432large');
    settings({ badges: false });
    await drawn();
    expect(cell.badge).toBeNull();
    settings({});
    await drawn();
    expect(cell.badge).not.toBeNull();
  });

  it('holds hostile names as text', async () => {
    const model = '<img src=x onerror="window.pwned=1">';
    const cell = new Cell('code', meta({ model, call_id: '"><script>' }));
    cell.appear();
    book(cell);
    await drawn();
    expect(cell.badge?.querySelector('img, script')).toBeNull();
    expect(cell.tooltip).toContain(model);
    expect(cell.badge?.getAttribute('aria-label')).toContain(model);
  });

  it('draws nothing after the notebook or the cell is gone', async () => {
    const [one, two] = [new Cell('code', meta()), new Cell('code', meta())];
    [one, two].forEach(cell => {
      cell.appear();
    });
    const { badges } = book(one, two);
    await drawn();
    one.dispose();
    expect(() => {
      one.model.outputs.set(meta());
    }).not.toThrow();
    badges.dispose();
    two.model.outputs.set();
    await drawn();
    expect(two.badge).not.toBeNull();
  });

  it('reads a bounded number of outputs', () => {
    const outputs = new Outputs(Array.from({ length: 100_000 }, () => meta()));
    expect(callsOf({ outputs: outputs as never })).toHaveLength(200);
  });
});
