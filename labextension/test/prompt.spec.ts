import fc from 'fast-check';
import { ensureSyntaxTree, language } from '@codemirror/language';
import { history, undo } from '@codemirror/commands';
import { python } from '@codemirror/lang-python';
import { Compartment, EditorState } from '@codemirror/state';
import { CodeExtractorsManager, VirtualDocument } from '@jupyterlab/lsp';
import { promptExtractor, promptHighlighting } from '../src/language';
import { PROMPT, isPrompt, promptLanguage } from '../src/prompt';

const lines = (text: string) => text.split('\n');

describe('what is a prompt', () => {
  it.each([
    '%%llm',
    '%%llm -m sim/large\nHi',
    '%%nbllm\nHi',
    '\n  \n%%llm\nHi',
    '  %%llm --raw',
    '%%llm\t-q'
  ])('%j is one', text => {
    expect(isPrompt(lines(text))).toBe(true);
  });

  it.each([
    ...['', '\n', 'x = 1', '%llm Hi', '%%llms', '%%llm?', '%%llm_plot', '%% llm', '# %%llm'],
    ...['x = 1\n%%llm', '"%%llm"', '%%LLM', '%%serve --flow x', '%%%llm']
  ])('%j is none', text => {
    expect(isPrompt(lines(text))).toBe(false);
  });
});

/** Return the parts of a text that have a style, as name:text. */
function styled(text: string): string[] {
  const state = EditorState.create({ doc: text, extensions: [promptLanguage] });
  const found: string[] = [];
  ensureSyntaxTree(state, text.length, 5_000)?.iterate({
    enter: node => {
      if (node.node.firstChild === null && !node.type.isTop) {
        found.push(`${node.name}:${text.slice(node.from, node.to)}`);
      }
    }
  });
  return found;
}

describe('how a prompt is drawn', () => {
  it('has a magic, flags, and Jinja in its text', () => {
    expect(
      styled("%%llm -m sim/large --feature=x\nIt's {{ doc|upper }} and {% if a == 'b' %} {{ 1 }} {% endif %}")
    ).toEqual([
      'keyword:%%llm',
      'attributeName:-m',
      'attributeName:--feature',
      ...['operator:{{', 'propertyName:doc', 'punctuation:|', 'propertyName:upper', 'operator:}}'],
      ...['operator:{%', 'keyword:if', 'propertyName:a', 'punctuation:==', "string:'b'", 'operator:%}'],
      ...['operator:{{', 'number:1', 'operator:}}'],
      ...['operator:{%', 'keyword:endif', 'operator:%}']
    ]);
  });

  it('is plain where nothing has a meaning: quotes, braces, comments, hashes, Python', () => {
    expect(styled('%%llm\nDon\'t "say" {"a": 1} {# no comment #} # x\ndef f(): pass')).toEqual([
      'keyword:%%llm'
    ]);
    expect(styled('%%llm --raw\n{{ doc }} {% if %}')).toEqual(['keyword:%%llm', 'attributeName:--raw']);
  });

  it('follows an expression over lines, and a text that ends it within', () => {
    expect(styled('%%llm\n{{\n doc }} x {{ "}}" }} y')).toEqual([
      ...['keyword:%%llm', 'operator:{{', 'propertyName:doc', 'operator:}}'],
      ...['operator:{{', 'string:"}}"', 'operator:}}']
    ]);
  });

  it('ends for any text', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        '%%llm',
        '%%nbllm --raw',
        '{{',
        '}}',
        '{%',
        '%}',
        '-',
        '--x',
        '=',
        '"',
        "'",
        '\\',
        '\n',
        ' ',
        '{',
        '#}'
      ),
      fc.string({ unit: 'binary', maxLength: 5 })
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), pieces => {
        styled(pieces.join(''));
        styled(`%%llm\n${pieces.join('')}`);
      })
    );
  });
});

const slot = new Compartment();
const open = (doc: string) =>
  EditorState.create({ doc, extensions: [slot.of(python()), promptHighlighting(doc), history()] });
const name = (state: EditorState) => state.facet(language)?.name;

describe('the language of an editor', () => {
  it('is that of its text when it is opened', () => {
    expect(name(open('%%llm\nHi'))).toBe(PROMPT);
    expect(name(open('x = 1'))).toBe('python');
  });

  it('changes with the first line, and back, also by undo', () => {
    let state = open('Hi');
    state = state.update({ changes: { from: 0, insert: '%%llm -m sim/small\n' } }).state;
    expect(name(state)).toBe(PROMPT);
    undo({ state, dispatch: transaction => (state = transaction.state) });
    expect(state.doc.toString()).toBe('Hi');
    expect(name(state)).toBe('python');
  });

  it('stays when the kernel says its language again, or another one', () => {
    let state = open('%%llm\nHi');
    state = state.update({ effects: slot.reconfigure([]) }).state;
    state = state.update({ effects: slot.reconfigure(python()) }).state;
    expect(name(state)).toBe(PROMPT);
    state = state.update({ changes: { from: 0, to: 6, insert: '' } }).state;
    expect(name(state)).toBe('python');
  });

  it('is none where the editor has none', () => {
    const state = EditorState.create({ doc: 'x', extensions: [promptHighlighting('x')] });
    expect(name(state)).toBeUndefined();
    expect(name(state.update({ changes: { from: 0, to: 1, insert: '%%llm' } }).state)).toBe(PROMPT);
  });
});

describe('a language server of Python', () => {
  it('sees no prompt, and the lines of other cells where they were', () => {
    const managers = new CodeExtractorsManager();
    managers.register(promptExtractor, 'python');
    const document = new VirtualDocument({
      language: 'python',
      foreignCodeExtractors: managers,
      path: 'a.ipynb',
      fileExtension: 'py',
      standalone: false,
      hasLspSupportedFile: false
    });
    const block = (value: string) => ({ value, ceEditor: {} as never, type: 'code' });
    document.appendCodeBlock(block('x = 1'));
    document.appendCodeBlock(block("%%llm\nIt's {{ x }}\n\nnot Python"));
    document.appendCodeBlock(block('y = 2'));
    expect(document.value).not.toMatch(/llm|not Python/);
    const code = document.value.split('\n').filter(line => line !== '');
    expect(code).toEqual(['x = 1', '#', '#', '#', '#', 'y = 2']);
    expect(document.foreignDocuments.size).toBe(0);
  });
});
