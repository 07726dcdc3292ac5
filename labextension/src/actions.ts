/** What the commands do: ask the user, ask the kernel, say what came of it. */
import { Clipboard, Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';
import { readUsd } from './budget';
import type { Answer, SessionModel } from './model';
import type { CacheMode, Wish } from './protocol';

const SAID_FOR_MS = 5_000;
const FAILURE_SAID_FOR_MS = 10_000;
/** How long a confirmation waits at most for the number that it is to show. */
const COUNT_LIMIT_MS = 2_000;
/** JupyterLab cuts a notification after so many. */
const MOST_CHARACTERS = 140;

type Asked = Pick<SessionModel, 'ask' | 'state'>;

/** Say what became of something, for some seconds. What is too long for a notification is said in short, and whole on request. */
export function tell({ ok, message }: Pick<Answer, 'ok' | 'message'>): void {
  const say = ok ? Notification.success : Notification.error;
  const short = inShort(message);
  if (short === message) {
    say(message, { autoClose: ok ? SAID_FOR_MS : FAILURE_SAID_FOR_MS });
    return;
  }
  const more = {
    label: 'Show All',
    caption: 'Show the whole message',
    callback: () => {
      void showDialog({ title: 'nbllm', body: whole(message), buttons: [Dialog.okButton()] });
    }
  };
  // It stays until it is dismissed: nobody could read it and press a button in some seconds.
  say(short, { autoClose: false, actions: [more] });
}

/** Return a message as a notification can hold it: all of it, else its first sentence, else its beginning. */
export function inShort(message: string): string {
  const text = message.trim();
  if (text.length <= MOST_CHARACTERS && !text.includes('\n')) {
    return message;
  }
  const sentence = /^.+?[.!?](?=\s|$)/.exec(text)?.[0] ?? text.split('\n', 1)[0] ?? '';
  if (sentence.length <= MOST_CHARACTERS) {
    return sentence;
  }
  // No half of a character that has two.
  return `${sentence.slice(0, MOST_CHARACTERS - 1).replace(/[\ud800-\udbff]$/, '')}…`;
}

/** Return the body of a dialog: text that can be selected, with its own lines. */
function whole(message: string): Widget {
  const body = new Widget({ node: document.createElement('pre') });
  body.addClass('jp-nbllm-Message');
  body.node.textContent = message;
  return body;
}

/** Ask the kernel, and say what came of it; of an answer that comes late too. */
async function askAndTell(session: Asked, wish: Wish): Promise<void> {
  tell(await session.ask(wish, undefined, tell));
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
      await askAndTell(session, { do: 'set_budget', usd });
      return;
    }
    label = `“${text.trim().slice(0, 40)}” is no amount of dollars. Write 5 or 2.50; empty: no limit.`;
  }
}

/** Drop the notebook's stored answers, if the user means it: how many there are is said before. */
export async function clearCache(session: Asked, name: string): Promise<void> {
  const { ok, data } = await session.ask({ do: 'count_cache' }, COUNT_LIMIT_MS);
  const entries = ok ? data?.entries : undefined;
  if (entries === 0) {
    tell({ ok: true, message: 'No answers of this notebook are stored.' });
    return;
  }
  const { button } = await showDialog({
    title: 'Clear the cache of this notebook?',
    body: `${whatGoes(entries, name)} Running its cells again asks the models again, at their price.`,
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Clear Cache' })]
  });
  if (button.accept) {
    await askAndTell(session, { do: 'clear_cache' });
  }
}

function whatGoes(entries: number | undefined, name: string): string {
  const whose = `that calls of ${name} made or used`;
  if (entries === undefined) {
    return `The stored answers ${whose} are dropped; the kernel cannot say now how many there are.`;
  }
  return entries === 1
    ? `1 stored answer ${whose} is dropped.`
    : `${entries.toLocaleString('en-US')} stored answers ${whose} are dropped.`;
}

/** Set how calls of the notebook use the cache; null: as the settings say. */
export async function setCacheMode(session: Asked, mode: CacheMode | null): Promise<void> {
  await askAndTell(session, { do: 'cache_mode', mode });
}

/** Copy the session's report. */
export async function copyReport(session: Asked): Promise<void> {
  const late = (answer: Answer) => {
    void copyAnswer(answer);
  };
  await copyAnswer(await session.ask({ do: 'report' }, undefined, late));
}

async function copyAnswer(answer: Answer): Promise<void> {
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
