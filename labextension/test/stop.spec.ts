import type { Answer } from '../src/model';
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
    const stopped = connection.stop('c9');
    await settle(1_000);
    expect(kernel.told).toEqual([{ v: 1, type: 'command', id: 'k1', do: 'stop', call_id: 'c9' }]);
    answer(kernel);
    expect((await stopped).message).toBe('Stopped.');
    expect(kernel.interrupts).toBe(0);
  });

  it('that a kernel with subshells does not answer says so, and interrupts nothing', async () => {
    const { kernel, connection } = await live();
    const stopped = connection.stop('c9');
    await settle(3_000);
    expect((await stopped).ok).toBe(false);
    expect(kernel.interrupts).toBe(0);
  });

  const deaf = () => live(new FakeKernel({ comms: ['own'], subshells: false }));
  const refusal = async (stopped: Promise<Answer>, kernel: FakeKernel) => {
    await settle(300);
    const { ok, message } = await stopped;
    expect(ok).toBe(false);
    expect(message).toContain('not known to have made the call');
    expect(kernel.interrupts).toBe(0);
  };

  it('interrupts the cell of the call after 300 ms where the kernel is deaf while it runs', async () => {
    const { kernel, connection } = await deaf();
    kernel.begin(kernel.queue('cell-1'));
    const stopped = connection.stop('c9');
    await settle(299);
    expect(kernel.interrupts).toBe(0);
    await settle(1);
    expect(kernel.interrupts).toBe(1);
    expect((await stopped).ok).toBe(true);
  });

  it('goes by what executes, not by what is queued before or behind it', async () => {
    const { kernel, connection } = await deaf();
    const [first, second] = [kernel.queue('cell-0'), kernel.queue('cell-1')];
    kernel.queue('cell-2');
    kernel.begin(first);
    await refusal(connection.stop('c9'), kernel);
    kernel.end(first);
    kernel.begin(second);
    kernel.end('a comm message'); // what else the kernel has done is no end of the cell
    const stopped = connection.stop('c9');
    await settle(300);
    expect((await stopped).ok).toBe(true);
    expect(kernel.interrupts).toBe(1);
  });

  it('interrupts no cell for a background call of an earlier run of a cell that is queued again', async () => {
    const { kernel, connection } = await deaf();
    const before = kernel.queue('cell-1');
    kernel.begin(before);
    kernel.end(before);
    const other = kernel.queue('cell-2');
    const again = kernel.queue('cell-1');
    kernel.begin(other, 5);
    await refusal(connection.stop('c9'), kernel);
    kernel.end(other);
    kernel.begin(again, 9);
    await refusal(connection.stop('c9'), kernel);
  });

  it('interrupts nothing that this connection did not begin, or whose begin or end it may have missed', async () => {
    const { kernel, connection, model } = await deaf();
    await refusal(connection.stop('c9'), kernel);
    kernel.begin('of another page');
    await refusal(connection.stop('c9'), kernel);
    kernel.begin(kernel.queue('cell-1'));
    kernel.connectionStatusChanged.emit('connecting');
    kernel.connectionStatusChanged.emit('connected');
    await settle();
    expect(model.state?.running).toHaveLength(1);
    await refusal(connection.stop('c9'), kernel);
  });

  it('interrupts nothing when the answer comes in time', async () => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9');
    await settle(100);
    answer(kernel);
    expect((await stopped).message).toBe('Stopped.');
    await settle(1_000);
    expect(kernel.interrupts).toBe(0);
  });

  it('of a call that is over by then does nothing', async () => {
    const { kernel, connection } = await deaf();
    const stopped = connection.stop('c9');
    kernel.say(delta(1, { running: [] }));
    await settle(300);
    expect((await stopped).message).toBe('The call is over.');
    expect(kernel.interrupts).toBe(0);
  });
});
