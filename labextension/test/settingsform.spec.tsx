/** The settings as JupyterLab's own form shows them: each with a name and an explanation, and the sections in an order to be changed. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FormComponent } from '@jupyterlab/ui-components';
import type { ComponentProps } from 'react';
import { DEFAULTS, readSettings } from '../src/settings';
import { click, draw } from './drawing';

type Form = ComponentProps<typeof FormComponent>;
interface Described {
  title?: string;
  description?: string;
}
const text = readFileSync(join(__dirname, '..', 'schema', 'plugin.json'), 'utf-8');
const schema = JSON.parse(text) as Form['schema'] & { properties: Record<string, Described> };
// JupyterLab's own comes with the settings editor, which is no package of ours; what it would refuse is not asked here.
const validator = {
  isValid: () => true,
  rawValidation: () => ({}),
  toErrorList: () => [],
  validateFormData: () => ({ errors: [], errorSchema: {} })
};

/** Draw the form with the defaults in it; return it, and what it was last changed to. */
function form(): { node: HTMLElement; last: () => unknown } {
  let last: unknown = null;
  const { node } = draw(
    <FormComponent
      schema={schema}
      validator={validator}
      formData={{ ...DEFAULTS }}
      formContext={{ defaultFormData: DEFAULTS }}
      showModifiedFromDefault
      onChange={({ formData }) => {
        last = formData;
      }}
    />
  );
  return { node, last: () => last };
}

it.each(Object.entries(schema.properties))(
  '%s has a title and a description, and they are shown',
  (_, one) => {
    const shown = form().node.textContent;
    expect(one.title).toMatch(/\S/);
    expect(one.description).toMatch(/\S/);
    expect(shown).toContain(one.title);
    expect(shown).toContain(one.description);
  }
);

it('the order of the sections is changed by buttons, and taken as it is then', async () => {
  const { node, last } = form();
  await click(node, '.jp-arrayFieldWrapper .jp-ArrayOperationsButton:not([disabled])');
  expect(readSettings(last() as object).sections).toEqual(['running', 'session', 'calls', 'endpoints']);
});
