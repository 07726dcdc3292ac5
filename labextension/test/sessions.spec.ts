import type { ILabShell } from '@jupyterlab/application';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { IConsoleTracker } from '@jupyterlab/console';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { Sessions } from '../src/sessions';
import { FakeKernel, settle } from './kernels';
import { delta, running, snapshot } from './states';

class FakeContext {
  constructor(public session: { kernel: FakeKernel | null } | null) {}
  readonly kernelChanged = new Signal<this, { newValue: FakeKernel | null }>(this);
  readonly propertyChanged = new Signal<this, string>(this);

  change(kernel: FakeKernel | null): void {
    this.session = { kernel };
    this.kernelChanged.emit({ newValue: kernel });
  }
}

/** A notebook panel as far as sessions look at it; a console without a path. */
class FakePanel extends Widget {
  constructor(kernel: FakeKernel | null, path?: string) {
    super();
    this.sessionContext = new FakeContext(kernel && { kernel });
    if (path !== undefined) {
      this.context = { path };
    }
  }
  readonly sessionContext: FakeContext;
  declare context?: { path: string };
  content = { widgets: [] as { model: { type: string; id: string; executionState: string } }[] };
}

class FakeTracker {
  currentWidget: FakePanel | null = null;
  readonly widgetAdded = new Signal<this, FakePanel>(this);
  readonly currentChanged = new Signal<this, FakePanel | null>(this);
  panels: FakePanel[] = [];

  forEach(look: (panel: FakePanel) => void): void {
    this.panels.forEach(look);
  }

  /** As JupyterLab does it: the new panel is current before it is said to be added. */
  open(panel: FakePanel): FakePanel {
    this.panels.push(panel);
    this.show(panel);
    this.widgetAdded.emit(panel);
    return panel;
  }

  show(panel: FakePanel | null): void {
    this.currentWidget = panel;
    this.currentChanged.emit(panel);
  }
}

function lab() {
  const notebooks = new FakeTracker();
  const consoles = new FakeTracker();
  const shell = { currentChanged: new Signal<object, { newValue: Widget | null }>({}) };
  const sessions = new Sessions({
    notebooks: notebooks as unknown as INotebookTracker,
    consoles: consoles as unknown as IConsoleTracker,
    shell: shell as unknown as ILabShell,
    about: { front: '0.1.0', app: 'JupyterLab 4.6.6', pace: () => 5 }
  });
  return { notebooks, consoles, shell, sessions };
}

const loaded = () => new FakeKernel({ comms: ['own'] });
const greeting = (kernel: FakeKernel) =>
  kernel.contents('comm_open').at(-1)?.data as { notebook: string | null };

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

it('a notebook that opens is in front, with its path as the server knows it', async () => {
  const { notebooks, sessions } = lab();
  const kernel = loaded();
  const panel = notebooks.open(new FakePanel(kernel, 'folder/a.ipynb'));
  await settle();
  expect(sessions.front.session).toBe(sessions.of(panel));
  expect(greeting(kernel).notebook).toBe('folder/a.ipynb');
  expect(sessions.widgetOf(sessions.of(panel)!)).toBe(panel);
});

it('a notebook that was open before the extension was there is found', () => {
  const { notebooks } = lab();
  const panel = notebooks.open(new FakePanel(loaded(), 'a.ipynb'));
  const again = new Sessions({
    notebooks: notebooks as unknown as INotebookTracker,
    consoles: null,
    shell: null,
    about: { front: '0.1.0', app: 'Jupyter Notebook 7', pace: () => 5 }
  });
  expect(again.front.session).toBe(again.of(panel));
});

it('a console has no path and a session of its own', async () => {
  const { consoles, sessions } = lab();
  const kernel = loaded();
  const panel = consoles.open(new FakePanel(kernel));
  await settle();
  expect(greeting(kernel).notebook).toBeNull();
  expect(sessions.front.session).toBe(sessions.of(panel));
});

it('each notebook shows its own kernel; a text file leaves the last notebook in sight', async () => {
  const { notebooks, shell, sessions } = lab();
  const [first, second] = [loaded(), loaded()];
  const one = notebooks.open(new FakePanel(first, 'a.ipynb'));
  const two = notebooks.open(new FakePanel(second, 'b.ipynb'));
  await settle();
  first.say(snapshot());
  second.say(snapshot({ cache_mode: 'off' }));
  expect(sessions.front.session?.state?.cache_mode).toBe('off');
  shell.currentChanged.emit({ newValue: one });
  expect(sessions.front.session?.state?.cache_mode).toBeNull();
  shell.currentChanged.emit({ newValue: new Widget() });
  shell.currentChanged.emit({ newValue: null });
  expect(sessions.front.session).toBe(sessions.of(one));
  notebooks.show(two);
  expect(sessions.front.session).toBe(sessions.of(two));
});

it('two notebooks on one kernel have a comm each, and hear only their own', async () => {
  const { notebooks, sessions } = lab();
  const [first, second] = [loaded(), new FakeKernel({ comms: ['own'], handleComms: false })];
  const one = notebooks.open(new FakePanel(first, 'a.ipynb'));
  const two = notebooks.open(new FakePanel(second, 'b.ipynb'));
  await settle();
  expect([greeting(first).notebook, greeting(second).notebook]).toEqual(['a.ipynb', 'b.ipynb']);
  for (const kernel of [first, second]) {
    kernel.say(snapshot(), first.opened); // every connection sees all that the kernel says
    kernel.say(snapshot({}, 5), second.opened);
    kernel.say(delta(1, { cache_mode: 'off' }), first.opened);
  }
  expect(sessions.of(one)?.state?.cache_mode).toBe('off');
  expect(sessions.of(two)?.state?.cache_mode).toBeNull();
});

it('another kernel is another session; without one there is nothing', async () => {
  const { notebooks, sessions } = lab();
  const [before, after] = [loaded(), loaded()];
  const panel = notebooks.open(new FakePanel(before, 'a.ipynb'));
  await settle();
  before.say(snapshot());
  panel.sessionContext.change(after);
  expect(sessions.of(panel)?.state).toBeNull();
  before.say(snapshot());
  await settle();
  expect(sessions.of(panel)?.phase).toBe('waiting');
  after.say(snapshot());
  expect(sessions.of(panel)?.phase).toBe('live');
  panel.sessionContext.change(null);
  expect(sessions.of(panel)?.phase).toBe('none');
});

it('a notebook that is renamed greets again', async () => {
  const { notebooks } = lab();
  const kernel = loaded();
  const panel = notebooks.open(new FakePanel(kernel, 'a.ipynb'));
  await settle();
  panel.context!.path = 'b.ipynb';
  panel.sessionContext.propertyChanged.emit('name');
  panel.sessionContext.propertyChanged.emit('path');
  await settle();
  expect(kernel.contents('comm_open')).toHaveLength(2);
  expect(greeting(kernel).notebook).toBe('b.ipynb');
});

it('a notebook that is closed leaves nothing behind', async () => {
  const { notebooks, sessions } = lab();
  const kernel = loaded();
  const panel = notebooks.open(new FakePanel(kernel, 'a.ipynb'));
  await settle();
  panel.dispose();
  expect(sessions.front.session).toBeNull();
  expect(sessions.of(panel)).toBeUndefined();
  expect(kernel.contents('comm_close')).toHaveLength(1);
  panel.sessionContext.change(loaded());
  expect(sessions.of(panel)).toBeUndefined();
});

it('leaving the page says goodbye to every kernel', async () => {
  const { notebooks } = lab();
  const kernels = [loaded(), loaded()];
  kernels.forEach((kernel, number) => notebooks.open(new FakePanel(kernel, `${number}.ipynb`)));
  await settle();
  window.dispatchEvent(new Event('pagehide'));
  kernels.forEach(kernel => {
    expect(kernel.contents('delete_subshell_request')).toHaveLength(1);
  });
});

it('Stop knows which of the cells that JupyterLab calls running is executed', async () => {
  const { notebooks, sessions } = lab();
  const kernel = new FakeKernel({ comms: ['own'], subshells: false });
  const panel = notebooks.open(new FakePanel(kernel, 'a.ipynb'));
  await settle();
  kernel.say(snapshot({ running: [running({ call_id: 'c9', cell_id: 'cell-1' })] }));
  panel.content.widgets = [
    { model: { type: 'code', id: 'cell-0', executionState: 'running' } },
    { model: { type: 'code', id: 'cell-1', executionState: 'running' } }
  ];
  kernel.begin(kernel.queue('cell-1'));
  kernel.queue('cell-0');
  const stopped = sessions.stop(sessions.of(panel)!, 'c9');
  await settle(300);
  expect((await stopped).ok).toBe(true);
  expect(kernel.interrupts).toBe(1);
});

it('Stop without a kernel says so', async () => {
  const { notebooks, sessions } = lab();
  const panel = notebooks.open(new FakePanel(null, 'a.ipynb'));
  expect((await sessions.stop(sessions.of(panel)!, 'c9')).ok).toBe(false);
});

it('another pace reaches every kernel', async () => {
  const { notebooks, sessions } = lab();
  const kernel = loaded();
  notebooks.open(new FakePanel(kernel, 'a.ipynb'));
  await settle();
  sessions.setPace(2);
  expect(kernel.told).toEqual([{ v: 1, type: 'pace', updates_per_s: 2 }]);
});
