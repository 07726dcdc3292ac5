// What browsers have and jsdom does not, as far as JupyterLab's packages need it to be loaded.
globalThis.DragEvent ??= class DragEvent extends MouseEvent {};
globalThis.matchMedia ??= query => ({
  media: query,
  matches: false,
  addEventListener() {},
  removeEventListener() {},
  addListener() {},
  removeListener() {}
});
navigator.clipboard ??= { writeText: async () => undefined };
class Observer {
  observe() {}
  unobserve() {}
  disconnect() {}
}
globalThis.IntersectionObserver ??= Observer;
globalThis.ResizeObserver ??= Observer;
globalThis.requestIdleCallback ??= callback => setTimeout(callback, 0);
