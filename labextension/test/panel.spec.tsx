/** The panel as a widget: what makes it draw, what does not, and what its buttons reach. */
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { Front, SessionModel } from '../src/model';
import type { ToKernel } from '../src/protocol';
import { DEFAULTS } from '../src/settings';
import type { INbllm } from '../src/tokens';
import { Commands } from '../src/tokens';
import { foldsIn } from '../src/views/folds';
import { Panel } from '../src/views/panel';
import { find } from './drawing';
import { call, delta, running, snapshot } from './states';

class Notebook extends Widget {
  readonly context = {
    statusChanged: new Signal<object, void>({}),
    kernelChanged: new Signal<object, void>({}),
    session: { kernel: { status: 'idle' } } as { kernel: { status: string } | null } | null
  };
  readonly sessionContext = this.context;
  readonly content = { model: { cells: [{ id: 'cell-1', type: 'code', executionCount: 3 }] } };
}

interface World {
  panel: Panel;
  front: Front;
  session: SessionModel;
  notebook: Notebook;
  sent: ToKernel[];
  jumps: unknown[];
  saved: unknown[];
  stopped: string[];
  drawn: () => number;
  frame: () => Promise<void>;
}

function world(): World {
  const front = new Front();
  const session = new SessionModel();
  const notebook = new Notebook();
  notebook.title.label = 'a.ipynb';
  const [sent, jumps, saved, stopped] = [[], [], [], []] as [ToKernel[], unknown[], unknown[], string[]];
  const commands = new CommandRegistry();
  commands.addCommand(Commands.jumpToCell, { execute: args => jumps.push(args) });
  const nbllm: INbllm = {
    front,
    settings: DEFAULTS,
    settingsChanged: new Signal<unknown, void>({}),
    sessionOf: () => session,
    widgetOf: one => (one === session ? notebook : undefined),
    stop: (_, callId) => {
      stopped.push(callId);
      return Promise.resolve({ ok: true, message: 'Stopped.', data: null });
    }
  };
  const folds = { read: () => Promise.resolve([]), write: (folded: unknown) => saved.push(folded) };
  const panel = new Panel({ nbllm, commands, folds, copy: () => {} });
  let drawn = 0;
  const draw = jest.spyOn(panel, 'render' as never) as jest.SpyInstance;
  draw.mockImplementation(function (this: Panel) {
    drawn += 1;
    return (Panel.prototype as unknown as { render: () => unknown }).render.call(panel);
  });
  session.attach({ send: message => sent.push(message) });
  Widget.attach(panel, document.body);
  ends.push(() => {
    panel.dispose();
    notebook.dispose();
  });
  return { panel, front, session, notebook, sent, jumps, saved, stopped, drawn: () => drawn, frame };
}

const ends: (() => void)[] = [];
afterEach(() => {
  ends.splice(0).forEach(end => {
    end();
  });
});
// React's own act() is for roots of a test; here a widget has its own, and draws when a browser would.
beforeEach(() => {
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = false;
});

/** Let an animation frame and what it leads to happen. */
async function frame(): Promise<void> {
  await new Promise(resolve => requestAnimationFrame(resolve));
  await new Promise(resolve => setTimeout(resolve, 20));
}

/** What is in front is drawn, by its name; what was in front before is not followed any more. */
test('the panel follows the session in front', async () => {
  const { panel, front, session, notebook, drawn } = world();
  await frame();
  expect(panel.node.textContent).toContain('Open a notebook');
  front.session = session;
  session.receive(snapshot({ calls: [call()] }));
  await frame();
  expect(find(panel.node, 'h2').textContent).toBe('a.ipynb');
  expect(panel.node.querySelectorAll('[data-call]')).toHaveLength(1);
  notebook.title.label = 'b.ipynb';
  await frame();
  expect(find(panel.node, 'h2').textContent).toBe('b.ipynb');
  front.session = null;
  await frame();
  expect(panel.node.textContent).toContain('Open a notebook');
  const before = drawn();
  notebook.title.label = 'c.ipynb';
  notebook.context.statusChanged.emit();
  await frame();
  expect(drawn()).toBe(before);
});

/** A restart is in sight although it brings no message. */
test('the panel says that the kernel restarts', async () => {
  const { panel, front, session, notebook } = world();
  front.session = session;
  session.receive(snapshot());
  await frame();
  session.detach();
  notebook.context.session = { kernel: { status: 'restarting' } };
  notebook.context.statusChanged.emit();
  await frame();
  expect(panel.node.textContent).toContain('The kernel is restarting');
  notebook.context.session = null;
  notebook.context.kernelChanged.emit();
  await frame();
  expect(panel.node.textContent).toContain('There is no kernel');
});

/** A burst of messages is one drawing, and rows that did not change are not touched. */
test('many changes in one frame are drawn once', async () => {
  const { panel, front, session, drawn } = world();
  front.session = session;
  session.receive(snapshot({ calls: [call({ call_id: 'old', started_at: 1 })] }));
  await frame();
  const [before, row] = [drawn(), find(panel.node, '[data-call=old]')];
  let touched = 0;
  new MutationObserver(changes => {
    touched += changes.length;
  }).observe(row, { subtree: true, childList: true, characterData: true, attributes: true });
  for (let seq = 1; seq <= 100; seq += 1) {
    session.receive(delta(seq, { calls: [call({ call_id: `c${seq}`, started_at: 1 + seq })] }));
  }
  await frame();
  expect(drawn()).toBe(before + 1);
  expect(panel.node.querySelectorAll('[data-call]')).toHaveLength(101);
  expect(find(panel.node, '[data-call=old]')).toBe(row);
  // Its Tab stop is now the newest row's.
  expect(touched).toBeLessThanOrEqual(1);
});

/** Nothing is drawn where nobody looks; what was missed is there when it is shown. */
test('a hidden panel does not draw', async () => {
  const { panel, front, session, drawn } = world();
  front.session = session;
  session.receive(snapshot());
  await frame();
  panel.hide();
  const before = drawn();
  session.receive(delta(1, { calls: [call()] }));
  await frame();
  expect(drawn()).toBe(before);
  panel.show();
  await frame();
  expect(panel.node.querySelectorAll('[data-call]')).toHaveLength(1);
});

/** Buttons and rows reach the kernel, the notebook and the place where folds are kept. */
test('what the user does is done', async () => {
  const { panel, front, session, sent, jumps, saved, stopped } = world();
  front.session = session;
  session.receive(snapshot({ calls: [call()], running: [running()] }, 0, 'a'.repeat(16)));
  await frame();
  find(panel.node, '.jp-nbllm-Stop').click();
  expect(stopped).toEqual(['c9']);
  find(panel.node, '.jp-nbllm-place').click();
  expect(jumps).toEqual([{ cellId: 'cell-1', notebook: null }]);
  find(panel.node, '[data-section=session] button').click();
  await frame();
  expect(saved).toEqual([['session']]);
  expect(panel.node.querySelector('.jp-nbllm-Session')).toBeNull();
  expect(sent).toEqual([]);
});

/** What was folded is read back; what cannot be read, or is no list of sections, folds nothing. */
test('folds', async () => {
  const saved: unknown[] = [];
  const place = (found: unknown) => ({
    fetch: () => (found instanceof Error ? Promise.reject(found) : Promise.resolve(found as undefined)),
    save: (_: string, value: unknown) => {
      saved.push(value);
      return Promise.reject(new Error('full'));
    }
  });
  expect(await foldsIn(place({ folded: ['calls', 'x', 'session'] })).read()).toEqual(['session', 'calls']);
  for (const found of [undefined, null, 5, {}, { folded: 'calls' }, new Error('no place')]) {
    expect(await foldsIn(place(found)).read()).toEqual([]);
  }
  foldsIn(place(undefined)).write(['calls']);
  expect(saved).toEqual([{ folded: ['calls'] }]);
  expect(await foldsIn(null).read()).toEqual([]);
});
