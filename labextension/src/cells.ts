/** Cells by what is known of them: where one is, and how to show it. */
import type { ILabShell, JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { NotebookActions } from '@jupyterlab/notebook';
import type { INbllm } from './tokens';

type Sessions = Pick<INbllm, 'front' | 'sessionOf' | 'widgetOf'>;

const FLASH_MS = 1_200;
const FLASH = 'jp-nbllm-mod-found';

/** A cell in an open notebook. */
export interface Place {
  panel: NotebookPanel;
  index: number;
}

/** What became of a jump: the cell is in sight, or a sentence that says why not. */
export type Jump = { ok: true } | { ok: false; message: string };

/**
 * Return where a cell is. tag: of its notebook; null: of the notebook in front, or of any other. Copies of a notebook have
 * cells of the same ids, so a tag that is known decides.
 */
export function placeOf(
  cellId: string,
  tag: string | null,
  tracker: INotebookTracker,
  nbllm: Sessions
): Place | null {
  const panels: NotebookPanel[] = [];
  tracker.forEach(panel => panels.push(panel));
  const { session } = nbllm.front;
  const front = session === null ? undefined : nbllm.widgetOf(session);
  // The notebook in front comes first, the others in the order they were opened in.
  panels.sort((a, b) => Number(b === front) - Number(a === front));
  for (const panel of panels) {
    if (tag === null || nbllm.sessionOf(panel)?.notebook === tag) {
      const index = panel.content.widgets.findIndex(cell => cell.model.id === cellId);
      if (index >= 0) {
        return { panel, index };
      }
    }
  }
  return null;
}

/** Bring a cell into sight, make it the active one, and let it light up for a moment. */
export async function jumpTo(
  cellId: string,
  tag: string | null,
  tracker: INotebookTracker,
  nbllm: Sessions,
  shell: JupyterFrontEnd.IShell | ILabShell
): Promise<Jump> {
  const place = placeOf(cellId, tag, tracker, nbllm);
  if (place === null) {
    const open =
      tag === null || tracker.find(panel => nbllm.sessionOf(panel)?.notebook === tag) !== undefined;
    return {
      ok: false,
      message: open
        ? 'The cell is not in the notebook any more.'
        : 'The notebook of this call is not open here.'
    };
  }
  const { content, id } = place.panel;
  shell.activateById(id);
  content.mode = 'command';
  content.deselectAll();
  content.activeCellIndex = place.index;
  await content.scrollToItem(place.index, 'smart');
  flash(content.widgets[place.index]?.node);
  return { ok: true };
}

/** Put a code cell below the active one, run it, and bring it into sight with what it shows. */
export async function runBelow({ content, sessionContext }: NotebookPanel, source: string): Promise<void> {
  NotebookActions.insertBelow(content);
  // The user's setting may have made it a Markdown cell.
  NotebookActions.changeCellType(content, 'code');
  const cell = content.activeCell;
  cell?.model.sharedModel.setSource(source);
  const ran = NotebookActions.run(content, sessionContext);
  await content.scrollToItem(content.activeCellIndex, 'smart');
  await ran;
  if (cell !== null && cell === content.activeCell) {
    await content.scrollToItem(content.activeCellIndex, 'start');
  }
}

function flash(node: HTMLElement | undefined): void {
  node?.classList.add(FLASH);
  setTimeout(() => node?.classList.remove(FLASH), FLASH_MS);
}
