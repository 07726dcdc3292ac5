/** The endpoints that this session has used or whose limits it shares: how they do, and what room is left. */
import { memo } from 'react';
import { compact, count, percent, plural } from '../format';
import type { Breaker, Endpoint } from '../protocol';
import { Light } from './marks';

interface Props {
  endpoints: readonly Endpoint[];
}

export const EndpointsView = memo(function EndpointsView({ endpoints }: Props) {
  if (endpoints.length === 0) {
    return (
      <p className="jp-nbllm-quiet">No endpoint was asked yet. Each shows up here with its first call.</p>
    );
  }
  return (
    <ul className="jp-nbllm-Endpoints" aria-label="Endpoints that were asked">
      {endpoints.map(endpoint => (
        <EndpointRow key={endpoint.name} endpoint={endpoint} />
      ))}
    </ul>
  );
});

const EndpointRow = memo(function EndpointRow({ endpoint }: { endpoint: Endpoint }) {
  const room = roomWords(endpoint);
  const engine = engineWords(endpoint);
  return (
    <li>
      <div className="jp-nbllm-Endpoint-head">
        <span className="jp-nbllm-cut" title={endpoint.name}>
          {endpoint.name}
        </span>
        <span
          className="jp-nbllm-number jp-nbllm-label"
          title="This session's requests, and the share that failed"
        >
          {errorWords(endpoint)}
        </span>
      </div>
      {endpoint.models.map(({ model, breaker }) => (
        <div key={model} className="jp-nbllm-Endpoint-model">
          <Light breaker={breaker} />
          <span className="jp-nbllm-cut" title={model}>
            {model}
          </span>
          <span className="jp-nbllm-Endpoint-breaker" data-breaker={breaker} title={BREAKERS[breaker].title}>
            {BREAKERS[breaker].word}
          </span>
        </div>
      ))}
      {room !== '' && (
        <div className="jp-nbllm-Endpoint-fact">
          <span className="jp-nbllm-label" title="What its own limits leave just now">
            Room
          </span>
          <span className="jp-nbllm-number">{room}</span>
        </div>
      )}
      {engine !== '' && (
        <div className="jp-nbllm-Endpoint-fact" data-engine={endpoint.engine?.state}>
          <span className="jp-nbllm-label" title="The model server that %serve has started">
            Engine
          </span>
          <span className="jp-nbllm-number">{engine}</span>
        </div>
      )}
    </li>
  );
});

/** What a breaker's state means for a call. */
export const BREAKERS: Readonly<Record<Breaker, { word: string; title: string }>> = {
  closed: { word: 'ok', title: 'Breaker closed: calls go through' },
  'half open': { word: 'half open', title: 'Breaker half open: one call tries whether it answers again' },
  open: { word: 'breaker open', title: 'Breaker open after failures: it is not asked for a while' },
  off: { word: 'off', title: 'Its key or the model was refused: off until the settings change' }
};

/** Return how many attempts failed. */
export function errorWords({ error_rate, attempts }: Pick<Endpoint, 'error_rate' | 'attempts'>): string {
  if (attempts === 0 || error_rate === null) {
    return 'not asked yet';
  }
  return error_rate === 0
    ? plural(attempts, 'request')
    : `${percent(error_rate)} of ${count(attempts)} failed`;
}

/** Return what an endpoint's own limits leave; empty without limits. */
export function roomWords({
  requests_left,
  tokens_left
}: Pick<Endpoint, 'requests_left' | 'tokens_left'>): string {
  return [
    ...(requests_left === null ? [] : [plural(requests_left, 'request')]),
    ...(tokens_left === null ? [] : [`${compact(tokens_left)} token${tokens_left === 1 ? '' : 's'}`])
  ].join(' · ');
}

/** Return how a model server does; empty without one. */
export function engineWords({ engine }: Pick<Endpoint, 'engine'>): string {
  if (engine === null) {
    return '';
  }
  return [
    engine.state,
    ...(engine.running === null ? [] : [`${count(engine.running)} running`]),
    ...(engine.waiting === null ? [] : [`${count(engine.waiting)} waiting`])
  ].join(' · ');
}
