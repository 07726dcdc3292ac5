import fc from 'fast-check';
import { Front, SessionModel, merged } from '../src/model';
import type { Call, ToKernel } from '../src/protocol';
import { call, delta, numbers, snapshot, state } from './states';

function live(first = snapshot()) {
  const sent: ToKernel[] = [];
  const model = new SessionModel();
  model.attach({ send: message => sent.push(message) });
  model.receive(first);
  return { model, sent };
}

const asked = (sent: ToKernel[]) => sent.filter(({ type }) => type === 'ask_snapshot').length;
let warn: jest.SpyInstance;

beforeEach(() => {
  jest.useFakeTimers();
  warn = jest.spyOn(console, 'warn').mockImplementation(() => {});
});
afterEach(() => {
  warn.mockRestore();
  jest.useRealTimers();
});

describe('a session', () => {
  it('is what the snapshot says', () => {
    const { model } = live(snapshot({}, 7, '0123456789abcdef'));
    expect(model.phase).toBe('live');
    expect(model.state).toEqual(state());
    expect(model.kernel?.session).toBe('ab12');
    expect(model.notebook).toBe('0123456789abcdef');
  });

  it('hears nothing before it has a kernel', () => {
    const model = new SessionModel();
    model.receive(snapshot());
    expect(model.state).toBeNull();
    expect(model.phase).toBe('none');
  });

  it('waits for the first snapshot', () => {
    const model = new SessionModel();
    model.attach({ send: () => {} });
    expect(model.phase).toBe('waiting');
  });

  it('takes in deltas in order, and tells who listens', () => {
    const { model } = live(snapshot({}, 3));
    const seen: (string | undefined)[] = [];
    model.changed.connect(sender => seen.push(sender.state?.session.cost_usd));
    model.receive(delta(4, { session: numbers({ cost_usd: '0.5' }) }));
    model.receive(delta(5, { session: numbers({ cost_usd: '0.6' }) }));
    expect(seen).toEqual(['0.5', '0.6']);
  });

  it('keeps what a delta does not name, as the same object', () => {
    const { model } = live(snapshot({ calls: [call()] }));
    const before = model.state;
    model.receive(delta(1, { session: numbers({ calls: 13 }) }));
    expect(model.state?.calls).toBe(before?.calls);
    expect(model.state?.budgets).toBe(before?.budgets);
    expect(before?.session.calls).toBe(12);
  });

  it('ignores a delta that it knows already', () => {
    const { model, sent } = live(snapshot({}, 5));
    model.receive(delta(5, { session: numbers({ calls: 99 }) }));
    expect(model.state?.session.calls).toBe(12);
    expect(asked(sent)).toBe(0);
  });

  it('asks for a snapshot once when a number is missing, and stands still until it comes', () => {
    const { model, sent } = live(snapshot({}, 1));
    model.receive(delta(3, { session: numbers({ calls: 14 }) }));
    model.receive(delta(2, { session: numbers({ calls: 13 }) }));
    model.receive(delta(4, { session: numbers({ calls: 15 }) }));
    expect(asked(sent)).toBe(1);
    expect(model.state?.session.calls).toBe(12);
    model.receive(snapshot({ session: numbers({ calls: 15 }) }, 4));
    model.receive(delta(5, { session: numbers({ calls: 16 }) }));
    expect(model.state?.session.calls).toBe(16);
    expect(asked(sent)).toBe(1);
  });

  it('asks again when the snapshot was lost too', () => {
    const { model, sent } = live();
    model.receive(delta(3));
    jest.advanceTimersByTime(2_500);
    model.receive(delta(9));
    expect(asked(sent)).toBe(2);
  });

  it('asks for a snapshot when a delta comes first', () => {
    const sent: ToKernel[] = [];
    const model = new SessionModel();
    model.attach({ send: message => sent.push(message) });
    model.receive(delta(1));
    expect(asked(sent)).toBe(1);
  });

  it('has the same numbers at the end, whichever messages were lost or came twice', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('kept', 'lost', 'twice'), { maxLength: 30 }), fates => {
        const { model, sent } = live();
        fates.forEach((fate, index) => {
          const message = delta(index + 1, { session: numbers({ calls: index + 1 }) });
          const times = { kept: 1, lost: 0, twice: 2 }[fate];
          for (let n = 0; n < times; n += 1) {
            const before = asked(sent);
            model.receive(message);
            if (asked(sent) > before) {
              model.receive(snapshot({ session: numbers({ calls: index + 1 }) }, index + 1));
            }
          }
        });
        const last = fates.length + 1;
        model.receive(delta(last, { session: numbers({ calls: last }) }));
        if (asked(sent) > 0 && model.state?.session.calls !== last) {
          model.receive(snapshot({ session: numbers({ calls: last }) }, last));
        }
        expect(model.state?.session.calls).toBe(last);
      })
    );
  });

  it('forgets everything when the kernel restarts', () => {
    const { model, sent } = live();
    model.detach();
    expect([model.phase, model.state, model.kernel, model.notebook]).toEqual(['none', null, null, null]);
    model.receive(snapshot());
    expect(model.state).toBeNull();
    expect(sent).toEqual([]);
  });

  it('keeps its numbers, marked, while the connection is down, and asks when it is up again', () => {
    const { model, sent } = live();
    model.lose();
    expect(model.phase).toBe('lost');
    expect(model.state).not.toBeNull();
    model.resume();
    expect(asked(sent)).toBe(1);
    model.receive(snapshot({}, 9));
    expect(model.phase).toBe('live');
  });

  it('that was never there is not lost either', () => {
    const model = new SessionModel();
    model.lose();
    expect(model.phase).toBe('none');
  });
});

describe('messages that are none', () => {
  it.each([
    null,
    'cut',
    [],
    {},
    { v: 2, type: 'delta' },
    { v: 1, type: 'poem' },
    { ...delta(1), state: null }
  ])('%j is ignored', message => {
    const { model } = live();
    model.receive(message);
    expect(model.state).toEqual(state());
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it('make one warning, however many come', () => {
    const { model } = live();
    for (let n = 0; n < 1_000; n += 1) {
      model.receive({ v: 1, type: 'poem' });
    }
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it('of a newer version say what to do', () => {
    const { model } = live();
    model.receive({ ...delta(1), v: 2 });
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('version 2'));
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('Update both'));
  });

  it('of a million rows cost nothing', () => {
    const { model } = live();
    const started = performance.now();
    model.receive(delta(1, { calls: new Array<Call>(1_000_000).fill(call()) }));
    expect(performance.now() - started).toBeLessThan(50);
    expect(model.state?.calls).toEqual([]);
  });

  it('never echo what they hold', () => {
    const { model } = live();
    model.receive({ v: 1, type: 'delta', seq: 1, state: { budgets: 'sk-secret' } });
    expect(JSON.stringify(warn.mock.calls)).not.toContain('sk-secret');
  });
});

describe('rows of calls', () => {
  it('are newest first, and a row that changed takes its old place', () => {
    const rows = [call({ call_id: 'b', started_at: 20 }), call({ call_id: 'a', started_at: 10 })];
    const news = [
      call({ call_id: 'a', started_at: 10, cost_usd: '0.5' }),
      call({ call_id: 'c', started_at: 15 }),
      call({ call_id: 'd', started_at: 20 })
    ];
    const next = merged(state({ calls: rows }), { calls: news });
    expect(next.calls.map(row => row.call_id)).toEqual(['d', 'b', 'c', 'a']);
    expect(next.calls[3]?.cost_usd).toBe('0.5');
  });

  it('are at most 200: the oldest go', () => {
    let now = state();
    for (let n = 0; n < 250; n += 1) {
      now = merged(now, { calls: [call({ call_id: `c${n}`, started_at: n })] });
    }
    expect(now.calls).toHaveLength(200);
    expect(now.calls[0]?.call_id).toBe('c249');
    expect(now.calls[199]?.call_id).toBe('c50');
  });
});

describe('a command', () => {
  it('is answered by the result of its own id', async () => {
    const { model, sent } = live();
    const [first, second] = [model.ask({ do: 'report' }), model.ask({ do: 'stop', call_id: 'c9' })];
    const ids = sent.map(message => ('id' in message ? message.id : ''));
    expect(new Set(ids).size).toBe(2);
    model.receive({ v: 1, type: 'result', id: ids[1], ok: true, message: 'Stopped.', data: null });
    model.receive({ v: 1, type: 'result', id: ids[0], ok: true, message: '', data: { markdown: '# x' } });
    expect((await second).message).toBe('Stopped.');
    expect((await first).data?.markdown).toBe('# x');
  });

  it('without a kernel says what to do', async () => {
    expect((await new SessionModel().ask({ do: 'report' })).message).toContain('%load_ext nbllm');
  });

  it('that is wrong is not sent', async () => {
    const { model, sent } = live();
    const answer = await model.ask({ do: 'set_budget', usd: '-1' });
    expect(answer.ok).toBe(false);
    expect(sent).toEqual([]);
  });

  it('ends when the kernel does not answer, restarts or is closed', async () => {
    const { model } = live();
    const late = model.ask({ do: 'report' });
    await jest.advanceTimersByTimeAsync(10_000);
    expect((await late).message).toBe('The kernel has not answered yet.');
    const cut = model.ask({ do: 'report' });
    model.detach();
    expect((await cut).message).toContain('restarted');
    expect(jest.getTimerCount()).toBe(0);
  });

  it('is not confused by a result that nobody waits for', () => {
    const { model } = live();
    model.receive({ v: 1, type: 'result', id: 'k77', ok: true, message: '', data: null });
    expect(warn).not.toHaveBeenCalled();
  });
});

describe('the front', () => {
  it('follows the session in front and no other', () => {
    const front = new Front();
    const [one, two] = [live().model, live().model];
    let changes = 0;
    front.changed.connect(() => (changes += 1));
    front.session = one;
    front.session = one;
    expect(changes).toBe(1);
    one.receive(delta(1));
    two.receive(delta(1));
    expect(changes).toBe(2);
    front.session = two;
    one.receive(delta(2));
    expect(changes).toBe(3);
    front.session = null;
    expect(front.session).toBeNull();
    expect(changes).toBe(4);
  });
});
