/** What the commands do: ask the user, ask the kernel, say what came of it. */
import { Clipboard, Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import { readUsd } from './budget';
import type { Answer, SessionModel } from './model';
import type { CacheMode } from './protocol';

const SAID_FOR_MS = 5_000;
const FAILURE_SAID_FOR_MS = 10_000;

type Asked = Pick<SessionModel, 'ask' | 'state'>;

/** Say what became of something, for some seconds. */
export function tell({ ok, message }: Pick<Answer, 'ok' | 'message'>): void {
  if (ok) {
    Notification.success(message, { autoClose: SAID_FOR_MS });
  } else {
    Notification.error(message, { autoClose: FAILURE_SAID_FOR_MS });
  }
}

/** Ask for the session's hard limit until an amount is written, and set it. */
export async function setBudget(session: Asked): Promise<void> {
  const limit = session.state?.budgets.find(({ scope }) => scope === 'session')?.hard_usd ?? '';
  let text = limit;
  let label = 'Calls that could cost more than this are refused. Empty: no limit.';
  for (;;) {
    const { button, value } = await InputDialog.getText({
      title: 'Session budget',
      label,
      text,
      prefix: '$',
      placeholder: '5.00',
      okLabel: 'Set Budget'
    });
    if (!button.accept) {
      return;
    }
    text = value ?? '';
    const usd = readUsd(text);
    if (usd !== undefined) {
      tell(await session.ask({ do: 'set_budget', usd }));
      return;
    }
    label = `“${text.trim().slice(0, 40)}” is no amount of dollars. Write 5 or 2.50; empty: no limit.`;
  }
}

/** Drop the notebook's stored answers, if the user means it. */
export async function clearCache(session: Asked, name: string): Promise<void> {
  const { button } = await showDialog({
    title: 'Clear the cache of this notebook?',
    body: `The stored answers that calls of ${name} made or used are dropped. Running its cells again asks the models again, at their price.`,
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Clear Cache' })]
  });
  if (button.accept) {
    tell(await session.ask({ do: 'clear_cache' }));
  }
}

/** Set how calls of the notebook use the cache; null: as the settings say. */
export async function setCacheMode(session: Asked, mode: CacheMode | null): Promise<void> {
  tell(await session.ask({ do: 'cache_mode', mode }));
}

/** Copy the session's report. */
export async function copyReport(session: Asked): Promise<void> {
  const answer = await session.ask({ do: 'report' });
  const markdown = answer.data?.markdown;
  if (!answer.ok || markdown === undefined) {
    tell({ ok: false, message: answer.ok ? 'The kernel sent no report.' : answer.message });
    return;
  }
  try {
    // There is no clipboard on pages that came over plain http from another machine.
    await navigator.clipboard.writeText(markdown);
    tell({ ok: true, message: 'The session report is in the clipboard, as Markdown.' });
  } catch {
    offerCopy(markdown);
  }
}

/** A browser that refuses to copy by itself does it for a click. */
function offerCopy(markdown: string): void {
  Notification.info('The session report is ready, and the browser wants a click before it is copied.', {
    autoClose: false,
    actions: [
      {
        label: 'Copy',
        callback: () => {
          Clipboard.copyToSystem(markdown);
        }
      }
    ]
  });
}
