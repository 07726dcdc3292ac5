import js from '@eslint/js';
import { globalIgnores } from 'eslint/config';
import ts from 'typescript-eslint';

export default ts.config(
  globalIgnores(['lib', 'node_modules', 'coverage', 'style/index.js', '*.config.mjs', 'test/*.cjs']),
  js.configs.recommended,
  ...ts.configs.strictTypeChecked,
  ...ts.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: { project: './test/tsconfig.json', tsconfigRootDir: import.meta.dirname }
    },
    rules: {
      curly: ['error', 'all'],
      eqeqeq: 'error',
      'max-lines': ['error', 300],
      'no-console': ['error', { allow: ['warn', 'error'] }],
      // JupyterLab's own style: T[] everywhere, and numbers in template strings are what meters are made of.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      // A namespace beside a class holds its options, as in all of JupyterLab.
      '@typescript-eslint/no-namespace': 'off',
      // Signals take a method and its object apart: signal.connect(this._onChanged, this).
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': 'error'
    }
  },
  {
    files: ['test/**'],
    rules: {
      // Fakes have empty methods, and promises of tests are awaited by their promises' outcomes.
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off'
    }
  }
);
