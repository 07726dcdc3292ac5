/**
 * JupyterLab takes every status message of a kernel for that of its cells (jupyterlab#10701): when a kernel has made a subshell or opened a
 * comm while a cell runs, its circle in the toolbar says "idle" until the cell ends. The server names types of requests that
 * do not count; requests that never run a user's code belong there too.
 */

const PLUMBING = ['create_subshell_request', 'delete_subshell_request', 'comm_open', 'comm_close'];

/** The name of the page's option. */
export const UNTRACKED = 'untracked_message_types';

/** Return the option's value with what does not count either; what is no list is left alone. */
export function untracked(option: string): string {
  let known: unknown;
  try {
    known = JSON.parse(option || '[]');
  } catch {
    return option;
  }
  return Array.isArray(known)
    ? JSON.stringify([...new Set<unknown>([...(known as unknown[]), ...PLUMBING])])
    : option;
}
