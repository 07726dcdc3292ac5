/** What stands beside the cells of a notebook: the numbers by which its reader knows them. */
import type { Widget } from '@lumino/widgets';

/** What of a notebook panel is read here; consoles have no such cells. */
interface Notebook {
  content?: { model?: { cells?: Iterable<Cell> } | null };
}

interface Cell {
  id: string;
  type: string;
  executionCount?: number | null;
  executionState?: string;
}

/** Return [3], [*] or [ ] for each code cell of a notebook panel, by cell id; none for other widgets. */
export function placesOf(widget: Widget | undefined): Map<string, string> {
  const places = new Map<string, string>();
  const cells =
    widget === undefined || widget.isDisposed ? undefined : (widget as Notebook).content?.model?.cells;
  for (const { id, type, executionCount, executionState } of cells ?? []) {
    if (type === 'code') {
      places.set(id, `[${executionState === 'running' ? '*' : (executionCount ?? ' ')}]`);
    }
  }
  return places;
}

/** Return the map of before where nothing has changed, so that what was drawn from it stays. */
export function same(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>
): ReadonlyMap<string, string> {
  const equal = before.size === after.size && [...after].every(([id, place]) => before.get(id) === place);
  return equal ? before : after;
}
