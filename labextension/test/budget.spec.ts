import fc from 'fast-check';
import { readUsd } from '../src/budget';

describe('amounts as people write them', () => {
  it.each([
    ['5', '5'],
    [' $5.00 ', '5.00'],
    ['2.5 USD', '2.5'],
    ['.50', '0.50'],
    ['007', '7'],
    ['0', '0'],
    ['', null],
    ['   ', null]
  ])('%j is %j', (written, usd) => {
    expect(readUsd(written)).toBe(usd);
  });

  it.each([
    ...['5,00', '1e3', '-5', '+5', 'abc', '$', '5.', '.', 'Infinity', 'NaN', '0x10', '5 5'],
    ...['1'.repeat(16), `1.${'0'.repeat(13)}`, '٥', '５', '5\n6']
  ])('%j is none', written => {
    expect(readUsd(written)).toBeUndefined();
  });

  it('what is read is what the protocol takes, whatever was written', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[$\d. ]{0,20}$/)), written => {
        const usd = readUsd(written);
        expect(usd === null || usd === undefined || /^\d{1,15}(\.\d{1,12})?$/.test(usd)).toBe(true);
      })
    );
  });
});
