/** Amounts of money as people write them. */

/** Return what was written as a decimal number of USD; null for nothing written, which is no limit; undefined for no amount. */
export function readUsd(written: string): string | null | undefined {
  const text = written
    .trim()
    .replace(/^\$\s*/, '')
    .replace(/\s*(usd|\$)$/i, '');
  if (text === '') {
    return written.trim() === '' ? null : undefined;
  }
  const found = /^(\d{0,15})(?:\.(\d{1,12}))?$/.exec(text);
  if (found === null) {
    return undefined;
  }
  const whole = (found[1] ?? '').replace(/^0+(?=\d)/, '') || '0';
  return found[2] === undefined ? whole : `${whole}.${found[2]}`;
}
