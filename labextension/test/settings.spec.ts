import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { DEFAULTS, SECTIONS, readSettings } from '../src/settings';

interface Property {
  default: unknown;
  minimum?: number;
  maximum?: number;
  items?: { enum: string[] };
}
const schema = JSON.parse(readFileSync(join(__dirname, '..', 'schema', 'plugin.json'), 'utf-8')) as {
  properties: Record<keyof typeof DEFAULTS, Property>;
};

it('the defaults are those of the schema', () => {
  const defaults = Object.entries(schema.properties).map(([name, { default: value }]) => [name, value]);
  expect(readSettings({})).toEqual(Object.fromEntries(defaults));
  expect(schema.properties.sections.items?.enum).toEqual(SECTIONS);
});

it('a value that breaks the schema is replaced by its default', () => {
  const wrong = {
    currencyDecimals: 'four',
    badges: 1,
    sections: 'calls',
    updatesPerSecond: 0,
    callsShown: 1e9
  };
  expect(readSettings(wrong)).toEqual(DEFAULTS);
});

it('sections are shown once, in the order of the user, and unknown ones are left out', () => {
  expect(readSettings({ sections: ['calls', 'poems', 'calls', 'session'] }).sections).toEqual([
    'calls',
    'session'
  ]);
  expect(readSettings({ sections: [] }).sections).toEqual([]);
});

it('whatever a file holds, settings are within their bounds', () => {
  const names = fc.record({
    currencyDecimals: fc.anything(),
    badges: fc.anything(),
    sections: fc.anything(),
    updatesPerSecond: fc.oneof(fc.double(), fc.anything()),
    callsShown: fc.oneof(fc.integer(), fc.anything())
  });
  fc.assert(
    fc.property(names, given => {
      const read = readSettings(given);
      for (const name of ['currencyDecimals', 'updatesPerSecond', 'callsShown'] as const) {
        expect(read[name]).toBeGreaterThanOrEqual(schema.properties[name].minimum!);
        expect(read[name]).toBeLessThanOrEqual(schema.properties[name].maximum!);
      }
      expect(typeof read.badges).toBe('boolean');
      expect(SECTIONS).toEqual(expect.arrayContaining([...read.sections]));
    })
  );
});
