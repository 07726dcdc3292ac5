/** Draws at most once per animation frame, however often it is asked to. */
import type { IDisposable } from '@lumino/disposable';

/** Calls a function at the next animation frame after a request; several requests before it are one. */
export class OnFrame implements IDisposable {
  constructor(private readonly _draw: () => void) {}

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Draw at the next frame. */
  request(): void {
    if (this._asked === null && !this._disposed) {
      this._asked = requestAnimationFrame(() => {
        this._asked = null;
        this._draw();
      });
    }
  }

  dispose(): void {
    this._disposed = true;
    if (this._asked !== null) {
      cancelAnimationFrame(this._asked);
      this._asked = null;
    }
  }

  private _asked: number | null = null;
  private _disposed = false;
}
