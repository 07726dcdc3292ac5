/** A section of the panel that folds, and the note that stands where one is empty. */
import { caretDownIcon, copyIcon } from '@jupyterlab/ui-components';
import type { ReactNode } from 'react';
import { useId } from 'react';
import type { Section } from '../settings';
import type { Deeds } from './facts';
import type { Notice } from './notice';

interface PartProps {
  section: Section;
  title: string;
  /** A few characters at the right of the title; null for none. */
  aside?: ReactNode;
  /** Whether there is so much in it that it scrolls by itself. */
  long?: boolean;
  folded: boolean;
  fold: Deeds['fold'];
  children: ReactNode;
}

export function Part({ section, title, aside, long = false, folded, fold, children }: PartProps) {
  const id = useId();
  return (
    <section className={classes('jp-nbllm-Part', long && !folded && 'jp-mod-long')} data-section={section}>
      <h3 className="jp-nbllm-Part-title">
        <button
          type="button"
          aria-expanded={!folded}
          aria-controls={id}
          onClick={() => {
            fold(section, !folded);
          }}
        >
          <caretDownIcon.react
            tag="span"
            className={classes('jp-nbllm-Part-caret', folded && 'jp-mod-folded')}
          />
          <span className="jp-nbllm-Part-name">{title}</span>
          {aside !== undefined && aside !== null && <span className="jp-nbllm-Part-aside">{aside}</span>}
        </button>
      </h3>
      <div id={id} className="jp-nbllm-Part-content" hidden={folded}>
        {!folded && children}
      </div>
    </section>
  );
}

export function Note({ notice, copy }: { notice: Notice; copy: Deeds['copy'] }) {
  const { text, code } = notice;
  return (
    <div className="jp-nbllm-Note">
      <p>{text}</p>
      {code !== null && (
        <div className="jp-nbllm-Note-code">
          <pre>{code}</pre>
          <button
            type="button"
            className="jp-nbllm-Button"
            title="Copy"
            aria-label={`Copy ${code}`}
            onClick={() => {
              copy(code);
            }}
          >
            <copyIcon.react tag="span" width="14px" height="14px" />
          </button>
        </div>
      )}
    </div>
  );
}

/** Return the class names that hold, as one text. */
export function classes(...names: (string | false)[]): string {
  return names.filter(Boolean).join(' ');
}
