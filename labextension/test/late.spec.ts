import type { Answer } from '../src/model';
import { SessionModel } from '../src/model';
import type { ToKernel } from '../src/protocol';

it('a command that is answered late is answered after all, once, also where the kernel ends before', async () => {
  jest.useFakeTimers();
  const sent: ToKernel[] = [];
  const model = new SessionModel();
  model.attach({ send: message => sent.push(message) });
  const came: [string, boolean][] = [];
  const late = (answer: Answer) => came.push([answer.message, answer.ok]);
  const [first, second] = [
    model.ask({ do: 'clear_cache' }, 5_000, late),
    model.ask({ do: 'report' }, 1, late)
  ];
  await jest.advanceTimersByTimeAsync(5_000);
  for (const answer of [await first, await second]) {
    expect(answer.message).toMatch(/^The kernel has not answered yet\. A notification will say so/);
  }
  expect(came).toEqual([]);
  const id = sent.map(message => ('id' in message ? message.id : ''))[0];
  for (const message of ['6 dropped.', 'again']) {
    model.receive({ v: 1, type: 'result', id, ok: true, message, data: null });
  }
  expect(came).toEqual([['6 dropped.', true]]);
  model.detach();
  expect(came[1]).toEqual(['The kernel has restarted or ended.', false]);
  expect(came).toHaveLength(2);
  jest.useRealTimers();
});
