import type { INotebookTracker } from '@jupyterlab/notebook';
import { jumpTo, placeOf } from '../src/cells';
import type { INbllm } from '../src/tokens';

interface Book {
  name: string;
  tag: string | null;
  cells: string[];
}

/** Notebooks as the tracker has them, the one in front by its name. */
function desk(books: Book[], inFront: string | null) {
  const panels = books.map(({ name, cells }) => ({
    id: name,
    content: {
      mode: 'edit',
      activeCellIndex: 0,
      widgets: cells.map(id => ({ model: { id }, node: document.createElement('div') })),
      deselectAll: jest.fn(),
      scrollToItem: jest.fn(() => Promise.resolve())
    }
  }));
  const sessions = books.map(({ tag }) => ({ notebook: tag }));
  const at = books.findIndex(({ name }) => name === inFront);
  const tracker = {
    forEach: (each: (panel: unknown) => void) => {
      panels.forEach(each);
    },
    find: (test: (panel: never) => boolean) => panels.find(panel => test(panel as never))
  } as unknown as INotebookTracker;
  const nbllm = {
    front: { session: sessions[at] ?? null },
    sessionOf: (panel: unknown) => sessions[panels.findIndex(one => one === panel)],
    widgetOf: (session: unknown) => panels[sessions.findIndex(one => one === session)]
  } as unknown as INbllm;
  const shell = { activateById: jest.fn() };
  const find = (cell: string, tag: string | null) => {
    const place = placeOf(cell, tag, tracker, nbllm);
    return place === null ? null : [place.panel.id, place.index];
  };
  const jump = (cell: string, tag: string | null) => jumpTo(cell, tag, tracker, nbllm, shell as never);
  return { panels, shell, find, jump };
}

const [one, two] = ['1'.repeat(16), '2'.repeat(16)];
const books = [
  { name: 'a', tag: one, cells: ['x', 'y'] },
  { name: 'copy of a', tag: two, cells: ['x', 'y', 'z'] },
  { name: 'plain', tag: null, cells: ['p'] }
];

describe('where a cell is', () => {
  it('is decided by the notebook, also among copies whose cells have the same ids', () => {
    const { find } = desk(books, 'a');
    expect(find('y', one)).toEqual(['a', 1]);
    expect(find('y', two)).toEqual(['copy of a', 1]);
    expect(find('z', one)).toBeNull();
    expect(find('x', '3'.repeat(16))).toBeNull();
  });

  it('is the notebook in front, then any other, where the notebook is not known', () => {
    expect(desk(books, 'copy of a').find('x', null)).toEqual(['copy of a', 0]);
    expect(desk(books, 'a').find('x', null)).toEqual(['a', 0]);
    expect(desk(books, 'a').find('p', null)).toEqual(['plain', 0]);
    expect(desk(books, null).find('x', null)).toEqual(['a', 0]);
    expect(desk([], null).find('x', null)).toBeNull();
  });
});

describe('a jump', () => {
  it('brings notebook and cell into sight, and marks the cell for a moment', async () => {
    jest.useFakeTimers();
    const { jump, panels, shell } = desk(books, 'a');
    expect(await jump('z', two)).toEqual({ ok: true });
    const { content } = panels[1]!;
    expect(shell.activateById).toHaveBeenCalledWith('copy of a');
    expect(content).toMatchObject({ activeCellIndex: 2, mode: 'command' });
    expect(content.scrollToItem).toHaveBeenCalledWith(2, 'smart');
    const { classList } = content.widgets[2]!.node;
    expect(classList).toHaveLength(1);
    jest.runAllTimers();
    expect(classList).toHaveLength(0);
    jest.useRealTimers();
  });

  it('says why there is none, and moves nothing', async () => {
    const { jump, shell } = desk(books, 'a');
    expect(await jump('gone', one)).toEqual({
      ok: false,
      message: 'The cell is not in the notebook any more.'
    });
    expect(await jump('gone', null)).toMatchObject({ ok: false });
    expect(await jump('x', '3'.repeat(16))).toEqual({
      ok: false,
      message: 'The notebook of this call is not open here.'
    });
    expect(shell.activateById).not.toHaveBeenCalled();
  });
});
