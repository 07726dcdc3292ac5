/** The plugins of this extension: what each needs and gives. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { front } from './front';
import { panel } from './panel';
import { status } from './status';

const plugins: JupyterFrontEndPlugin<unknown>[] = [front, status, panel];
export default plugins;
