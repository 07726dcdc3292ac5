import { Bench, FakeKernel, settle } from './kernels';
import { delta, snapshot, state } from './states';

let bench: Bench;
const connect = (kernel: FakeKernel) => bench.connect(kernel);
const live = (kernel?: FakeKernel) => bench.live(kernel);

beforeEach(() => {
  jest.useFakeTimers();
  bench = new Bench();
});
afterEach(() => {
  bench.dispose();
  jest.useRealTimers();
});

describe('finding each other', () => {
  it('opens no comm, and makes no subshell, in a kernel without nbllm', async () => {
    const { kernel, model } = connect(new FakeKernel());
    await settle(5_000);
    expect(kernel.sent.map(one => one.type)).toEqual(['comm_info_request']);
    expect(model.phase).toBe('none');
  });

  it('greets a kernel that announces itself: who, where and how often', async () => {
    const { kernel, model } = connect(new FakeKernel());
    await settle();
    kernel.announce();
    await settle();
    expect(kernel.contents('comm_open')).toEqual([
      {
        comm_id: kernel.opened,
        target_name: 'nbllm',
        data: {
          v: 1,
          type: 'hello',
          front: '0.1.0',
          app: 'JupyterLab 4.6.6',
          notebook: 'folder/a.ipynb',
          updates_per_s: 5
        }
      }
    ]);
    expect(model.phase).toBe('waiting');
    kernel.say(snapshot());
    expect(model.state).toEqual(state());
  });

  it('finds a kernel that has nbllm already, as after a reload', async () => {
    const { kernel } = await live();
    expect(kernel.contents('comm_open')).toHaveLength(1);
  });

  it('speaks over a subshell, so that a running cell does not hold it up', async () => {
    const { kernel } = await live();
    expect(kernel.sent.find(one => one.type === 'comm_open')?.subshell).toBe('sub-1');
  });

  it('uses no subshell where there are none, or the user wants none', async () => {
    for (const options of [{ subshells: false }, { setting: 'disabled' }]) {
      const { kernel } = await live(new FakeKernel({ comms: ['own'], ...options }));
      expect(kernel.contents('create_subshell_request')).toEqual([]);
      expect(kernel.sent.find(one => one.type === 'comm_open')?.subshell).toBeNull();
    }
  });

  it('is live within two seconds when the page is reloaded while a cell runs', async () => {
    const kernel = new FakeKernel({ comms: ['own'] });
    kernel.busy = true;
    kernel.info = new Promise(() => {}); // JupyterLab asks on the main shell
    connect(kernel);
    await settle(2_100);
    expect(kernel.sent.find(one => one.type === 'comm_open')?.subshell).toBe('sub-1');
  });

  it('waits for the cell where the kernel has no subshells', async () => {
    const kernel = new FakeKernel({ comms: ['own'], subshells: false });
    kernel.busy = true;
    connect(kernel);
    await settle(5_000);
    expect(kernel.contents('comm_open')).toEqual([]);
    kernel.sent.find(one => one.type === 'comm_info_request')?.reply({ comms: { own: {} } });
    await settle();
    expect(kernel.contents('comm_open')).toHaveLength(1);
  });

  it('works for the second notebook on one kernel, whose connection JupyterLab gives no comms', async () => {
    const { kernel, model } = await live(new FakeKernel({ comms: ['own'], handleComms: false }));
    expect(kernel.targets.size).toBe(0);
    kernel.say(delta(1, { cache_mode: 'off' }));
    expect(model.state?.cache_mode).toBe('off');
  });

  it('keeps JupyterLab from closing what the kernel announces', async () => {
    const { kernel, connection } = await live();
    expect([...kernel.targets.keys()]).toEqual(['nbllm']);
    connection.dispose();
    expect(kernel.targets.size).toBe(0);
  });

  it('picks up an announcement that comes after the kernel listed none', async () => {
    const { kernel, model } = await live();
    kernel.comms = [];
    kernel.connectionStatusChanged.emit('disconnected');
    kernel.connectionStatusChanged.emit('connected');
    await settle(5_000);
    expect(model.phase).toBe('none');
    kernel.announce();
    await settle();
    kernel.say(snapshot());
    expect(model.phase).toBe('live');
  });

  it('does not take an old answer for the end of a kernel that has announced itself since', async () => {
    const kernel = new FakeKernel();
    kernel.busy = true;
    const { model } = connect(kernel);
    await settle();
    kernel.busy = false;
    kernel.announce();
    await settle();
    kernel.sent.find(one => one.type === 'comm_info_request')?.reply({ comms: {} });
    await settle();
    kernel.say(snapshot());
    expect(model.phase).toBe('live');
  });

  it('warns of an announcement that it does not understand', async () => {
    const warn = jest.spyOn(console, 'warn').mockImplementation(() => {});
    const { kernel } = connect(new FakeKernel());
    kernel.publish('comm_open', { comm_id: 'x', target_name: 'nbllm', data: { v: 2, type: 'announce' } });
    kernel.publish('comm_open', { comm_id: 'y', target_name: 'jupyter.widget', data: {} });
    await settle();
    expect(warn).toHaveBeenCalledTimes(1);
    expect(kernel.contents('comm_open')).toEqual([]);
    warn.mockRestore();
  });
});

describe('what happens to a kernel', () => {
  it('is heard on its own comm only', async () => {
    const { kernel, model } = await live();
    kernel.say(delta(1, { cache_mode: 'off' }), 'of another notebook');
    expect(model.state?.cache_mode).toBeNull();
    kernel.publish('stream', { text: 'x' });
    kernel.say(delta(1, { cache_mode: 'off' }));
    expect(model.state?.cache_mode).toBe('off');
  });

  it('a restart forgets the session; loading nbllm again begins another', async () => {
    const { kernel, model } = await live();
    kernel.comms = [];
    kernel.statusChanged.emit('restarting');
    expect([model.phase, model.state]).toEqual(['none', null]);
    kernel.statusChanged.emit('idle');
    await settle();
    expect(kernel.contents('comm_open')).toHaveLength(1);
    kernel.announce();
    await settle();
    expect(kernel.contents('comm_open')).toHaveLength(2);
    expect(kernel.contents('create_subshell_request')).toHaveLength(2);
  });

  it('a restart of a kernel that loads nbllm at its start is seen without an announcement', async () => {
    const { kernel } = await live();
    kernel.comms = ['own'];
    kernel.statusChanged.emit('autorestarting');
    kernel.statusChanged.emit('idle');
    await settle();
    expect(kernel.contents('comm_open')).toHaveLength(2);
  });

  it('a death ends the session', async () => {
    const { kernel, model } = await live();
    kernel.statusChanged.emit('dead');
    expect(model.phase).toBe('none');
  });

  it('unloading nbllm ends the session', async () => {
    const { kernel, model } = await live();
    kernel.publish('comm_close', { comm_id: kernel.opened });
    expect(model.phase).toBe('none');
  });

  it('a lost connection keeps the numbers; back again it asks for what was missed', async () => {
    const { kernel, model } = await live();
    kernel.connectionStatusChanged.emit('connecting');
    expect(model.phase).toBe('lost');
    kernel.connectionStatusChanged.emit('connected');
    await settle();
    expect(kernel.told).toEqual([{ v: 1, type: 'ask_snapshot' }]);
    expect(kernel.contents('comm_open')).toHaveLength(1);
    kernel.say(snapshot({}, 40));
    expect(model.phase).toBe('live');
  });

  it('a connection that comes back to another process finds that out', async () => {
    for (const [comms, opened] of [
      [['own'], 2],
      [[], 1]
    ] as const) {
      const { kernel, model } = await live();
      kernel.connectionStatusChanged.emit('disconnected');
      kernel.comms = [...comms];
      kernel.connectionStatusChanged.emit('connected');
      await settle();
      expect(kernel.contents('comm_open')).toHaveLength(opened);
      expect(model.phase).toBe(opened === 2 ? 'waiting' : 'none');
    }
  });

  it('another name of the notebook is said with a new greeting', async () => {
    const { kernel, connection } = await live();
    const before = kernel.opened;
    bench.path = 'folder/b.ipynb';
    connection.rename();
    await settle();
    expect(kernel.contents('comm_close')[0]?.comm_id).toBe(before);
    expect(kernel.contents('comm_open')[1]?.data).toMatchObject({ notebook: 'folder/b.ipynb' });
  });

  it('another pace is asked for', async () => {
    const { kernel, connection } = await live();
    connection.setPace(2);
    expect(kernel.told).toEqual([{ v: 1, type: 'pace', updates_per_s: 2 }]);
  });

  it('closing the panel says goodbye and gives the subshell back', async () => {
    const { kernel, model, connection } = await live();
    connection.dispose();
    connection.dispose();
    expect(kernel.contents('comm_close')).toHaveLength(1);
    expect(kernel.contents('delete_subshell_request')).toEqual([{ subshell_id: 'sub-1' }]);
    expect(model.phase).toBe('none');
    kernel.announce();
    kernel.statusChanged.emit('idle');
    await settle();
    expect(kernel.contents('comm_open')).toHaveLength(1);
  });

  it('a kernel that was disposed of is left alone', async () => {
    const { kernel, connection } = await live();
    kernel.isDisposed = true;
    const before = kernel.sent.length;
    connection.dispose();
    expect(kernel.sent).toHaveLength(before);
  });
});
