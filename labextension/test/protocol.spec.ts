/** The shared fixtures of tests/data/lab_protocol, which pytest runs too. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fromKernelMessage, toKernelMessage } from '../src/protocol';

const FOLDER = join(__dirname, '..', '..', 'tests', 'data', 'lab_protocol');

interface Fixture {
  says: string;
  direction: 'to_front' | 'to_kernel';
  valid: boolean;
  message: unknown;
  parsed?: unknown;
}

const fixtures = readdirSync(FOLDER)
  .filter(name => name.endsWith('.json'))
  .map(name => [name, JSON.parse(readFileSync(join(FOLDER, name), 'utf-8')) as Fixture] as const);

/** Both sides take and refuse the same messages, and read the same values out of them. */
describe('the fixtures shared with the kernel', () => {
  it.each(fixtures)('%s', (_, { direction, valid, message, parsed, says }) => {
    expect(says).not.toBe('');
    const check = direction === 'to_front' ? fromKernelMessage : toKernelMessage;
    if (valid) {
      expect(check(message)).toEqual(parsed ?? message);
    } else {
      expect(() => check(message)).toThrow();
    }
  });

  it('are all there', () => {
    expect(fixtures.filter(([, { valid }]) => valid).length).toBeGreaterThan(20);
    expect(fixtures.filter(([, { valid }]) => !valid).length).toBeGreaterThan(30);
  });
});
