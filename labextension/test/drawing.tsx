/** Draws components into a page of jsdom, and what a panel needs to be drawn. */
import type { ReactElement } from 'react';
import { act } from 'react';
import { createRoot } from 'react-dom/client';
import { DEFAULTS } from '../src/settings';
import type { Deeds, Facts } from '../src/views/facts';
import { state } from './states';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
Element.prototype.scrollIntoView = () => {};

const ends: (() => void)[] = [];
afterEach(() => {
  ends.splice(0).forEach(end => {
    end();
  });
});

/** Return the node that a component is drawn into, and a function that draws it again with other properties. */
export function draw(element: ReactElement): { node: HTMLElement; again: (element: ReactElement) => void } {
  const node = document.body.appendChild(document.createElement('div'));
  const root = createRoot(node);
  const again = (next: ReactElement) => {
    act(() => {
      root.render(next);
    });
  };
  again(element);
  ends.push(() => {
    act(() => {
      root.unmount();
    });
    node.remove();
  });
  return { node, again };
}

/** Click on what a selector finds, and let what follows happen. */
export async function click(node: HTMLElement, selector: string): Promise<void> {
  await act(async () => {
    find(node, selector).click();
    await Promise.resolve();
  });
}

/** Press a key on an element. */
export async function press(element: Element, key: string): Promise<void> {
  await act(async () => {
    element.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
    await Promise.resolve();
  });
}

/** Choose or type a value as a user does. */
export async function enter(node: HTMLElement, selector: string, value: string): Promise<void> {
  const element = find(node, selector) as HTMLInputElement | HTMLSelectElement;
  const kind = element instanceof HTMLSelectElement ? HTMLSelectElement : HTMLInputElement;
  await act(async () => {
    // React keeps its own idea of a value, so the prototype's setter is what a browser calls.
    Object.getOwnPropertyDescriptor(kind.prototype, 'value')?.set?.call(element, value);
    element.dispatchEvent(
      new Event(element instanceof HTMLSelectElement ? 'change' : 'input', { bubbles: true })
    );
    await Promise.resolve();
  });
}

export function find(node: HTMLElement, selector: string): HTMLElement {
  const found = node.querySelector<HTMLElement>(selector);
  if (found === null) {
    throw new Error(`There is no ${selector} in ${node.innerHTML}`);
  }
  return found;
}

export function texts(node: HTMLElement, selector: string): string[] {
  return [...node.querySelectorAll(selector)].map(one => one.textContent);
}

/** Return deeds of which a test names what matters to it; the others succeed. */
export function deeds(some: Partial<Deeds> = {}): Deeds {
  const done = () => Promise.resolve({ ok: true, message: 'Done.', data: null });
  return { stop: done, why: done, jump: () => {}, copy: () => {}, fold: () => {}, ...some };
}

export function facts(some: Partial<Facts> = {}): Facts {
  return {
    session: 1,
    title: 'work.ipynb',
    phase: 'live',
    kernel: 'idle',
    state: state(),
    notebook: null,
    places: new Map([['cell-1', '[3]']]),
    settings: DEFAULTS,
    folded: [],
    ...some
  };
}
