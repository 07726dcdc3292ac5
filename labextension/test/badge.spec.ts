import fc from 'fast-check';
import { mark } from '../src/badge';
import type { Badge } from '../src/protocol';
import { badgeOf } from '../src/protocol';
import { badge } from './states';

describe('the metadata that a badge is read from', () => {
  const good = badge();

  it('is taken as the kernel writes it, without what this version does not know', () => {
    expect(badgeOf({ nbllm: good })).toEqual(good);
    expect(badgeOf({ nbllm: { ...good, prompt: 'secret' }, 'image/png': {} })).toEqual(good);
    expect(badgeOf({ nbllm: { ...good, cost_usd: null } })).toEqual({ ...good, cost_usd: null });
  });

  it.each([
    ['nothing', undefined],
    ['null', null],
    ['a text', 'nbllm'],
    ['a list', [good]],
    ['a newer version', { ...good, v: 2 }],
    ['a version as text', { ...good, v: '1' }],
    ['no model', { ...good, model: undefined }],
    ['a model of 201 characters', { ...good, model: 'x'.repeat(201) }],
    ['a model that is an object', { ...good, model: { toString: 'x' } }],
    ['a cost as a number', { ...good, cost_usd: 0.1 }],
    ['a negative cost', { ...good, cost_usd: '-1' }],
    ['a cost that is markup', { ...good, cost_usd: '<img src=x onerror=alert(1)>' }],
    ['a source that nobody knows', { ...good, source: 'constructor' }],
    ['no source', { ...good, source: null }],
    ['no call', { ...good, call_id: '' }],
    ['a long call', { ...good, call_id: 'c'.repeat(65) }]
  ])('draws nothing when it is %s', (_, nbllm) => {
    expect(badgeOf({ nbllm })).toBeNull();
  });

  it('draws nothing where there is none, also not from a prototype', () => {
    expect([undefined, null, 'x', [], {}].map(badgeOf)).toEqual([null, null, null, null, null]);
    expect(badgeOf(Object.create({ nbllm: good }))).toBeNull();
    expect(badgeOf({ nbllm: Object.create(good) as unknown })).toBeNull();
  });

  it('never throws', () => {
    fc.assert(
      fc.property(
        fc.anything(),
        fc.dictionary(fc.constantFrom(...Object.keys(good)), fc.anything()),
        (all, some) => {
          badgeOf(all);
          const read = badgeOf({ nbllm: { ...good, ...some } });
          expect(read === null || Object.keys(read).sort().join() === Object.keys(good).sort().join()).toBe(
            true
          );
        }
      )
    );
  });
});

describe('the words of a badge', () => {
  it('are what it cost, and the model where there is room', () => {
    expect(mark([badge()], 4)).toMatchObject({ text: '$0.0012', more: 'large', source: 'model' });
    expect(mark([badge({ cost_usd: '0.000075' })], 2)?.text).toBe('$0.000075');
    expect(mark([badge({ cost_usd: '0.43219' })], 4)?.text).toBe('$0.4322');
  });

  it.each(['cache', 'semantic', 'stale', 'static'] as const)('name the source when it is %s', source => {
    expect(mark([badge({ source, cost_usd: '0' })], 4)).toMatchObject({ text: source, source });
  });

  it('say static once, as there was no model', () => {
    const words = mark([badge({ model: 'static', source: 'static', cost_usd: '0' })], 4);
    expect(words).toMatchObject({ text: 'static', more: '' });
  });

  it('never call an unknown cost nothing', () => {
    const words = mark([badge({ cost_usd: null })], 4);
    expect(words?.text).toBe('cost ?');
    expect(words?.title).toContain('cost unknown');
    expect(words?.label).toContain('cost unknown');
    expect(mark([badge({ cost_usd: null }), badge()], 4)).toMatchObject({
      text: '2 calls',
      more: '$0.0012 + ?'
    });
  });

  it('say everything to who points at it or listens', () => {
    const words = mark([badge({ source: 'cache', cost_usd: '0' })], 4);
    expect(words?.title).toBe('sim/large · $0.00 · cache hit\nMore: %llm_why c1');
    expect(words?.label).toBe('LLM call: sim/large, $0.00, cache hit');
  });

  it('add several calls up exactly', () => {
    const words = mark([badge({ cost_usd: '0.1' }), badge({ cost_usd: '0.2', source: 'cache' })], 4);
    expect(words).toMatchObject({ text: '2 calls', more: '$0.30', source: 'several' });
    expect(words?.title.split('\n')).toHaveLength(3);
    const many = mark(
      Array.from({ length: 100 }, () => badge()),
      4
    );
    expect(many).toMatchObject({ text: '100 calls', more: '$0.12', source: 'model' });
    expect(many?.title.split('\n').at(-1)).toBe('and 92 more');
  });

  it('are absent without calls', () => {
    expect(mark([], 4)).toBeNull();
  });

  it('hold no character that turns or hides text, and stay short', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), fc.boolean(), (model, twice) => {
        const call: Badge = badge({ model });
        const words = mark(twice ? [call, call] : [call], 4);
        const all = [words?.text, words?.more, words?.title.replaceAll('\n', ''), words?.label].join('');
        expect(all).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
        expect(all.length).toBeLessThan(500);
      })
    );
    const turned = mark([badge({ model: 'sim/\u202Egpj.exe\u0000' })], 4);
    expect(turned?.title).toContain('sim/ gpj.exe');
  });
});
