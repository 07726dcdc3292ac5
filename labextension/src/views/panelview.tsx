/** The whole panel: a notice where there is nothing to show, else its sections in the order of the settings. */
import { plural, speed } from '../format';
import type { State } from '../protocol';
import type { Section } from '../settings';
import { CallsView } from './calls';
import { isOf } from './calllist';
import { EndpointsView } from './endpoints';
import type { Deeds, Facts } from './facts';
import { emptyNotice, lostNotice } from './notice';
import { Note, Part } from './part';
import { RunningView } from './running';
import { SessionView } from './session';

/** So many calls fit without a scroll bar of their own. */
const FEW_CALLS = 6;

interface Props {
  facts: Facts;
  deeds: Deeds;
}

export function PanelView({ facts, deeds }: Props) {
  const empty = emptyNotice(facts);
  const lost = lostNotice(facts);
  const { state, settings } = facts;
  return (
    <>
      <h2 className="jp-nbllm-Panel-title" title={facts.title ?? undefined}>
        {facts.title ?? 'LLM calls'}
      </h2>
      {empty !== null && <Note notice={empty} copy={deeds.copy} />}
      {lost !== null && (
        <p className="jp-nbllm-Panel-lost" role="status">
          {lost}
        </p>
      )}
      {state !== null && settings.sections.length === 0 && (
        <p className="jp-nbllm-quiet">All sections are switched off: Settings Editor, nbllm.</p>
      )}
      {state !== null &&
        settings.sections.map(section => (
          <Part
            key={`${facts.session} ${section}`}
            section={section}
            title={TITLES[section]}
            aside={asideOf(section, state)}
            long={section === 'calls' && state.calls.length > FEW_CALLS}
            folded={facts.folded.includes(section)}
            fold={deeds.fold}
          >
            <Content section={section} state={state} facts={facts} deeds={deeds} />
          </Part>
        ))}
    </>
  );
}

const TITLES: Readonly<Record<Section, string>> = {
  session: 'Session',
  running: 'Running',
  calls: 'Calls',
  endpoints: 'Endpoints'
};

/** Return what a section says in its title, so that it says it when it is folded too. */
export function asideOf(section: Section, state: State): string | null {
  const { session, endpoints } = state;
  switch (section) {
    case 'running': {
      const pace = session.tokens_per_s === null ? '' : speed(session.tokens_per_s);
      const number = underWay(state);
      return number > 0 ? [plural(number, 'call'), pace].filter(Boolean).join(' · ') : null;
    }
    case 'endpoints': {
      const models = endpoints.flatMap(endpoint => endpoint.models);
      const open = models.filter(({ breaker }) => breaker === 'open').length;
      return open > 0 ? `${plural(open, 'breaker')} open` : null;
    }
    case 'calls':
    case 'session':
      return null;
  }
}

/** Return how many calls are under way: of many only the first are named. */
function underWay({ session, running }: State): number {
  return Math.max(running.length, session.running);
}

/** Return whether a call of a notebook is under way, or only others; in a console all calls are its own. */
function whereRunning(state: State, { notebook, places }: Facts): 'here' | 'elsewhere' | null {
  if (underWay(state) === 0) {
    return null;
  }
  const here = notebook === null || state.running.some(call => isOf(call, notebook, places));
  return here ? 'here' : 'elsewhere';
}

function Content({
  section,
  state,
  facts,
  deeds
}: {
  section: Section;
  state: State;
  facts: Facts;
  deeds: Deeds;
}) {
  const decimals = facts.settings.currencyDecimals;
  switch (section) {
    case 'session':
      return (
        <SessionView
          session={state.session}
          today={state.today}
          budgets={state.budgets}
          cacheMode={state.cache_mode}
          decimals={decimals}
        />
      );
    case 'running':
      return (
        <RunningView
          running={state.running}
          places={facts.places}
          live={facts.phase === 'live'}
          deeds={deeds}
        />
      );
    case 'calls':
      return (
        <CallsView
          calls={state.calls}
          running={whereRunning(state, facts)}
          notebook={facts.notebook}
          places={facts.places}
          most={facts.settings.callsShown}
          decimals={decimals}
          deeds={deeds}
        />
      );
    case 'endpoints':
      return <EndpointsView endpoints={state.endpoints} />;
  }
}
