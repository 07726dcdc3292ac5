/** What stands beside the cells of a notebook: the numbers by which its reader knows them. */
import { NotebookPanel } from '@jupyterlab/notebook';
import type { Widget } from '@lumino/widgets';

/** Return [3], [*] or [ ] for each code cell of a notebook panel, by cell id; none for other widgets. */
export function placesOf(widget: Widget | undefined): Map<string, string> {
  const places = new Map<string, string>();
  const cells =
    widget instanceof NotebookPanel && !widget.isDisposed ? widget.content.model?.cells : undefined;
  for (const cell of cells ?? []) {
    if (cell.type === 'code') {
      const { executionCount, executionState } = cell as unknown as {
        executionCount: number | null;
        executionState?: string;
      };
      places.set(cell.id, `[${executionState === 'running' ? '*' : (executionCount ?? ' ')}]`);
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
