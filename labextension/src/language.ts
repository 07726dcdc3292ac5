/**
 * The plugin that shows %%llm cells as prompts, not as Python.
 *
 * Each editor decides by its own text, so kernels that come and go, undo, split cells and notebooks that draw only the cells in
 * sight need no care, and nothing is written anywhere. The cell stays a code cell of its kernel's language for everything else:
 * the kernel completes models and flags as before.
 */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import type { IForeignCodeExtractor } from '@jupyterlab/lsp';
import { ILSPCodeExtractorsManager } from '@jupyterlab/lsp';
import type { Extension } from '@codemirror/state';
import { Compartment, EditorState, Prec } from '@codemirror/state';
import { isPrompt, promptLanguage } from './prompt';

const MARKDOWN = 'text/x-ipythongfm';

export const prompts: JupyterFrontEndPlugin<void> = {
  id: 'nbllm-lab:language',
  description: 'Highlights %%llm cells as prompts.',
  autoStart: true,
  requires: [IEditorExtensionRegistry],
  optional: [ILSPCodeExtractorsManager],
  activate: (_, editors: IEditorExtensionRegistry, extractors: ILSPCodeExtractorsManager | null) => {
    editors.addExtension({
      name: 'nbllm-prompt',
      factory: ({ inline, model }) =>
        inline && model.mimeType !== MARKDOWN
          ? EditorExtensionRegistry.createImmutableExtension(
              promptHighlighting(model.sharedModel.getSource())
            )
          : null
    });
    extractors?.register(promptExtractor, 'python');
  }
};

const slot = new Compartment();
// Of several languages an editor has the first.
const asPrompt = Prec.highest(promptLanguage);
const asBefore: Extension = [];

/** Return the extension of an editor that takes the language of prompts while its text is one. text: the one it begins with. */
export function promptHighlighting(text: string): Extension {
  return [
    slot.of(isPrompt(text.split('\n')) ? asPrompt : asBefore),
    EditorState.transactionExtender.of(transaction => {
      if (!transaction.docChanged) {
        return null;
      }
      const next = isPrompt(transaction.newDoc.iterLines()) ? asPrompt : asBefore;
      return slot.get(transaction.startState) === next ? null : { effects: slot.reconfigure(next) };
    })
  ];
}

/** Hides prompts from language servers of Python: each line becomes an empty comment, so that the others keep their numbers. */
export const promptExtractor: IForeignCodeExtractor = {
  language: 'nbllm',
  fileExtension: 'txt',
  standalone: false,
  cellType: ['code'],
  hasForeignCode: code => isPrompt(code.split('\n')),
  extractForeignCode: code => [
    { hostCode: emptied(code), foreignCode: null, range: null, virtualShift: null }
  ]
};

function emptied(code: string): string {
  return code
    .split('\n')
    .map(() => '#')
    .join('\n');
}
