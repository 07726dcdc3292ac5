import { Bench, FakeKernel, settle } from './kernels';
import { delta } from './states';

let bench: Bench;
const live = (kernel?: FakeKernel) => bench.live(kernel);

beforeEach(() => {
  jest.useFakeTimers();
  bench = new Bench();
});
afterEach(() => {
  bench.dispose();
  jest.useRealTimers();
});

describe('Stop', () => {
  const answer = (kernel: FakeKernel) => {
    const asked = kernel.told.at(-1) as { id: string };
    kernel.say({ v: 1, type: 'result', id: asked.id, ok: true, message: 'Stopped.', data: null });
  };

  it('ends the call through the kernel, and interrupts nothing', async () => {
    const { kernel, connection } = await live();
    const stopped = connection.stop('c9', 'cell-1');
    await settle(1_000);
    expect(kernel.told).toEqual([{ v: 1, type: 'command', id: 'k1', do: 'stop', call_id: 'c9' }]);
    answer(kernel);
    expect((await stopped).message).toBe('Stopped.');
    expect(kernel.interrupts).toBe(0);
  });

  it('that a kernel with subshells does not answer says so, and interrupts nothing', async () => {
    const { kernel, connection } = await live();
    const stopped = connection.stop('c9', 'cell-1');
    await settle(3_000);
    expect((await stopped).ok).toBe(false);
    expect(kernel.interrupts).toBe(0);
  });

  const deaf = () => live(new FakeKernel({ comms: ['own'], subshells: false }));

  it('interrupts the cell of the call after 300 ms where the kernel is deaf while it runs', async () => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9', 'cell-1');
    await settle(299);
    expect(kernel.interrupts).toBe(0);
    await settle(1);
    expect(kernel.interrupts).toBe(1);
    expect((await stopped).ok).toBe(true);
  });

  it('interrupts nothing when the answer comes in time', async () => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9', 'cell-1');
    await settle(100);
    answer(kernel);
    expect((await stopped).message).toBe('Stopped.');
    await settle(1_000);
    expect(kernel.interrupts).toBe(0);
  });

  it.each([null, 'cell-2'])('says why it cannot when cell %s runs and the call is of another', async cell => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9', cell);
    await settle(300);
    const { ok, message } = await stopped;
    expect(ok).toBe(false);
    expect(message).toContain('belongs to another cell');
    expect(kernel.interrupts).toBe(0);
  });

  it('of a call that is over by then does nothing', async () => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9', 'cell-1');
    kernel.say(delta(1, { running: [] }));
    await settle(300);
    expect((await stopped).message).toBe('The call is over.');
    expect(kernel.interrupts).toBe(0);
  });
});
