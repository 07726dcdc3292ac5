/** The plugins of this extension: what each needs and gives. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { badges } from './badges';
import { commands } from './commands';
import { front } from './front';
import { prompts } from './language';
import { panel } from './panel';
import { status } from './status';

const plugins: JupyterFrontEndPlugin<unknown>[] = [front, status, panel, badges, commands, prompts];
export default plugins;
