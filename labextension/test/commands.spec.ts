import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, Notification } from '@jupyterlab/apputils';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { inShort } from '../src/actions';
import { commands, whyNot } from '../src/commands';
import type { Answer, Phase } from '../src/model';
import type { State, Wish } from '../src/protocol';
import { Commands } from '../src/tokens';
import { budget, state } from './states';

/** The commands of a lab with one session, and what that session was asked. */
async function lab(some: Partial<State> | null = {}, phase: Phase = 'live', said: Partial<Answer> = {}) {
  const asked: Wish[] = [];
  const session = {
    phase,
    state: some === null ? null : state(some),
    ask: (wish: Wish) => {
      asked.push(wish);
      return Promise.resolve({ ok: true, message: 'Done.', data: null, ...said });
    }
  };
  const front = { session: some === null ? null : session, changed: new Signal<object, void>({}) };
  const panel = { title: { label: 'a.ipynb' } };
  const registry = new CommandRegistry();
  const nbllm = { front, widgetOf: () => panel };
  const tracker = { find: () => undefined };
  const items: [string, unknown][] = [];
  const palette = {
    addItem: ({ command, args }: { command: string; args: unknown }) => items.push([command, args])
  };
  await commands.activate({ commands: registry } as unknown as JupyterFrontEnd, nbllm, tracker, palette);
  return { registry, asked, session, front, items };
}

/** Return the texts of what users were told since the last time. */
function told(): [string, string][] {
  const all = Notification.manager.notifications.map(({ type, message }): [string, string] => [
    type,
    message
  ]);
  Notification.manager.dismiss();
  return all;
}

const frame = () => new Promise(resolve => requestAnimationFrame(resolve));

/** Wait until a dialog is there; type into it, if it has a field, and press a button by its label. */
async function answer(button: string, text?: string): Promise<string> {
  await Dialog.tracker.currentWidget?.ready;
  for (let turn = 0; turn < 50 && document.querySelector('.jp-Dialog') === null; turn++) {
    await frame();
  }
  const dialog = document.querySelector('.jp-Dialog')!;
  const words = dialog.textContent;
  if (text !== undefined) {
    dialog.querySelector('input')!.value = text;
  }
  const buttons = [...dialog.querySelectorAll<HTMLElement>('button')];
  buttons.find(one => one.textContent.includes(button))!.click();
  await frame();
  return words;
}

afterEach(() => {
  told();
});

describe('a command', () => {
  it.each(['setSessionBudget', 'clearCache', 'cacheMode', 'copyReport', 'openPlots'] as const)(
    '%s is off without a session, and its label says why',
    async name => {
      const id = Commands[name];
      const { registry } = await lab({}, 'none');
      expect(registry.isEnabled(id)).toBe(false);
      expect(registry.label(id)).toMatch(/\(nbllm is not loaded: %load_ext nbllm\)$/);
      const nothing = await lab(null);
      expect(nothing.registry.isEnabled(id)).toBe(false);
      expect(nothing.registry.label(id)).toMatch(/\(no notebook is open\)$/);
    }
  );

  it('says that the kernel is silent or gone', () => {
    expect(whyNot({ phase: 'live' })).toBeNull();
    expect(whyNot({ phase: 'waiting' })).toContain('not answered');
    expect(whyNot({ phase: 'lost' })).toContain('no connection');
  });

  it('that is run all the same says so and asks nothing', async () => {
    const { registry, asked } = await lab({}, 'none');
    await registry.execute(Commands.copyReport);
    expect(asked).toEqual([]);
    expect(told()).toEqual([['error', expect.stringContaining('nbllm is not loaded')]]);
  });

  it('is in the palette, once for each thing that it can do', async () => {
    const { items, registry } = await lab();
    const labels = items.map(([id, args]) => registry.label(id, args as never));
    expect(new Set(labels).size).toBe(labels.length);
    expect(labels).toContain('Cache for This Notebook: Refresh');
    expect(labels).toContain('Set Session Budget…');
    expect(labels.filter(label => label.startsWith('Plot in a New Cell'))).toHaveLength(6);
  });

  it('of plots is off in a console', async () => {
    const { registry } = await lab();
    expect(registry.isEnabled(Commands.openPlots)).toBe(false);
    expect(registry.label(Commands.openPlots)).toBe('Latency (a console has no cells)');
  });

  it('is looked at again only when what is shown of it changes', async () => {
    const { registry, front, session } = await lab();
    const changes: (string | undefined)[] = [];
    registry.commandChanged.connect((_, { id }) => changes.push(id));
    const change = async () => {
      front.changed.emit();
      front.changed.emit();
      await frame();
      await frame();
      return changes.splice(0).length;
    };
    expect(await change()).toBe(5);
    session.state = state({ session: { ...session.state!.session, calls: 99 } });
    expect(await change()).toBe(0);
    session.state = state({ cache_mode: 'off' });
    expect(await change()).toBe(5);
    session.phase = 'lost';
    expect(await change()).toBe(5);
  });
});

describe('a message', () => {
  const long = `The budget of $0.05 is smaller than what was spent. ${'Raise it, or restart the kernel. '.repeat(9)}`;

  it('that a notification can hold is said whole', () => {
    for (const message of ['Done.', 'x'.repeat(140), '']) {
      expect(inShort(message)).toBe(message);
    }
  });

  it.each([
    ['One. Two', 'One. Two'],
    [`One of 2.5. ${'x '.repeat(99)}`, 'One of 2.5.'],
    ['One line\nand another', 'One line'],
    ['y'.repeat(300), `${'y'.repeat(139)}…`],
    ['\u{1f600}'.repeat(200), `${'\u{1f600}'.repeat(69)}…`]
  ])('%j is said in short', (message, short) => {
    expect(inShort(message)).toBe(short);
    expect(short.length).toBeLessThanOrEqual(140);
  });

  it('that it cannot hold is shown whole by a button, as text, and stays until it is dismissed', async () => {
    const hostile = `${long}<img src=x onerror=alert(1)>`;
    const { registry } = await lab({}, 'live', { ok: false, message: hostile });
    await registry.execute(Commands.cacheMode, { mode: 'off' });
    const [notice] = Notification.manager.notifications;
    expect(notice?.message).toBe('The budget of $0.05 is smaller than what was spent.');
    expect(notice?.options.autoClose).toBe(false);
    const [more] = notice?.options.actions ?? [];
    more?.callback(new MouseEvent('click'));
    await frame();
    expect(document.querySelector('.jp-Dialog img')).toBeNull();
    expect(await answer('Ok')).toContain(hostile);
  });

  it('that comes late is said all the same', async () => {
    const { registry, session } = await lab();
    const late: ((answer: Answer) => void)[] = [];
    session.ask = (_: Wish, _limit?: number, then?: (answer: Answer) => void) => {
      late.push(then!);
      return Promise.resolve({ ok: false, message: 'The kernel has not answered yet.', data: null });
    };
    await registry.execute(Commands.cacheMode, { mode: 'off' });
    await registry.execute(Commands.copyReport);
    expect(told().map(([type]) => type)).toEqual(['error', 'error']);
    const written = jest.spyOn(navigator.clipboard, 'writeText').mockResolvedValue();
    late.forEach(then => {
      then({ ok: true, message: 'The cache is off.', data: { markdown: '# Late' } });
    });
    await frame();
    expect(written).toHaveBeenCalledWith('# Late');
    // The newest is first.
    expect(told().map(([, message]) => message)).toEqual([
      expect.stringContaining('clipboard'),
      'The cache is off.'
    ]);
  });
});

describe('the cache mode', () => {
  it('is asked for and shown as a choice', async () => {
    const { registry, asked } = await lab({ cache_mode: 'refresh' });
    const on = (mode: string) => registry.isToggled(Commands.cacheMode, { mode });
    expect(['use', 'refresh', 'off', 'default'].map(on)).toEqual([false, true, false, false]);
    await registry.execute(Commands.cacheMode, { mode: 'off' });
    await registry.execute(Commands.cacheMode, { mode: 'default' });
    expect(asked).toEqual([
      { do: 'cache_mode', mode: 'off' },
      { do: 'cache_mode', mode: null }
    ]);
    expect(told()).toHaveLength(2);
  });

  it('shows nothing as chosen where there is no session', async () => {
    const { registry } = await lab({ cache_mode: 'off' }, 'lost');
    expect(registry.isToggled(Commands.cacheMode, { mode: 'off' })).toBe(false);
  });

  it.each(['constructor', 7, null, '__proto__'])('takes %j for the default', async mode => {
    const { registry, asked } = await lab();
    await registry.execute(Commands.cacheMode, { mode });
    expect(asked).toEqual([{ do: 'cache_mode', mode: null }]);
  });
});

describe('the budget', () => {
  it('is asked for until it is an amount, with the limit that holds now', async () => {
    const { registry, asked } = await lab({ budgets: [budget({ hard_usd: '5' })] });
    const done = registry.execute(Commands.setSessionBudget);
    const words = await answer('Set', '5,50');
    expect(words).toContain('Empty: no limit');
    expect(await answer('Set', '5.50')).toContain('“5,50” is no amount');
    await done;
    expect(asked).toEqual([{ do: 'set_budget', usd: '5.50' }]);
    expect(told()).toEqual([['success', 'Done.']]);
  });

  it('is taken away by an empty answer, and left alone by Cancel', async () => {
    const { registry, asked } = await lab();
    const first = registry.execute(Commands.setSessionBudget);
    await answer('Cancel', '7');
    await first;
    expect(asked).toEqual([]);
    const second = registry.execute(Commands.setSessionBudget);
    await answer('Set', '');
    await second;
    expect(asked).toEqual([{ do: 'set_budget', usd: null }]);
  });
});

describe('clearing the cache', () => {
  const said = { message: 'Stored answers dropped.', data: { entries: 1234 } };

  it('says first how many answers of which notebook would go', async () => {
    const { registry, asked } = await lab({}, 'live', said);
    const first = registry.execute(Commands.clearCache);
    expect(await answer('Cancel')).toContain('1,234 stored answers that calls of a.ipynb made or used are');
    await first;
    expect(asked).toEqual([{ do: 'count_cache' }]);
    const second = registry.execute(Commands.clearCache);
    await answer('Clear Cache');
    await second;
    expect(asked.slice(1)).toEqual([{ do: 'count_cache' }, { do: 'clear_cache' }]);
    expect(told()).toEqual([['success', 'Stored answers dropped.']]);
  });

  it.each([
    [{ data: { entries: 1 } }, '1 stored answer that calls of a.ipynb made or used is dropped.'],
    [{ data: null }, 'cannot say now how many'],
    [{ ok: false, message: 'The kernel has not answered yet.' }, 'cannot say now how many']
  ])('asks also where there is one, or nobody knows: %j', async (said, words) => {
    const { registry } = await lab({}, 'live', said);
    const asking = registry.execute(Commands.clearCache);
    expect(await answer('Cancel')).toContain(words);
    await asking;
    expect(told()).toEqual([]);
  });

  it('asks nothing where there is nothing to drop', async () => {
    const { registry, asked } = await lab({}, 'live', { data: { entries: 0 } });
    await registry.execute(Commands.clearCache);
    expect(asked).toEqual([{ do: 'count_cache' }]);
    expect(told()).toEqual([['success', 'No answers of this notebook are stored.']]);
  });
});

describe('the report', () => {
  it('goes to the clipboard', async () => {
    const written = jest.spyOn(navigator.clipboard, 'writeText').mockResolvedValue();
    const { registry } = await lab({}, 'live', { data: { markdown: '# Session' } });
    await registry.execute(Commands.copyReport);
    expect(written).toHaveBeenCalledWith('# Session');
    expect(told()).toEqual([['success', expect.stringContaining('clipboard')]]);
  });

  it('waits for a click where the browser does not let a page copy', async () => {
    jest.spyOn(navigator.clipboard, 'writeText').mockRejectedValue(new Error('NotAllowedError'));
    const { registry } = await lab({}, 'live', { data: { markdown: '# Session' } });
    await registry.execute(Commands.copyReport);
    const [notice] = Notification.manager.notifications;
    expect(notice?.options.actions?.map(({ label }) => label)).toEqual(['Copy']);
  });

  it('that the kernel does not make is an error, in its words', async () => {
    const { registry } = await lab({}, 'live', { ok: false, message: 'The ledger is locked.' });
    await registry.execute(Commands.copyReport);
    expect(told()).toEqual([['error', 'The ledger is locked.']]);
  });
});
