/** The model goes where the kernel's own state goes: both take the walks of tests/data/lab_sequences. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { merged } from '../src/model';
import type { Call, Change, State } from '../src/protocol';

const FOLDER = join(__dirname, '..', '..', 'tests', 'data', 'lab_sequences');

interface Walk {
  says: string;
  /** What all of its calls have in common, where there are many. */
  row?: Omit<Call, 'call_id' | 'started_at'>;
  start: Short<State>;
  changes: Short<Change>[];
  end: Short<State>;
}

/** Calls may be given by their first and last number. */
type Short<T extends Change> = Omit<T, 'calls'> & { calls?: Call[] | { first: number; last: number } };

const walks = readdirSync(FOLDER)
  .filter(name => name.endsWith('.json'))
  .map(name => JSON.parse(readFileSync(join(FOLDER, name), 'utf-8')) as Walk);

function full(short: Short<Change>, row: Walk['row']): Change {
  const { calls } = short;
  if (calls === undefined || Array.isArray(calls)) {
    return short as Change;
  }
  const { first, last } = calls;
  const rows = Array.from({ length: Math.abs(last - first) + 1 }, (_, index) => {
    const n = first + (last < first ? -index : index);
    return { call_id: `c${String(n).padStart(6, '0')}`, started_at: 1000 + n, ...row } as Call;
  });
  return { ...short, calls: rows };
}

test.each(walks.map(walk => [walk.says, walk] as const))('%s', (_, { row, start, changes, end }) => {
  let now = full(start, row) as State;
  for (const change of changes) {
    now = merged(now, full(change, row));
  }
  expect(now).toEqual(full(end, row));
});

test('there are walks', () => {
  expect(walks.length).toBeGreaterThan(3);
});
