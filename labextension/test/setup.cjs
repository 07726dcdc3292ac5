// What jsdom lacks and Lumino wants to be there when it is loaded.
globalThis.DragEvent ??= class DragEvent extends MouseEvent {};
