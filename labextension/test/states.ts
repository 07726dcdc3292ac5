/** States and rows for tests: whole ones, of which a test names what matters to it. */
import type {
  Badge,
  Budget,
  Call,
  Delta,
  Endpoint,
  Running,
  SessionNumbers,
  Snapshot,
  State
} from '../src/protocol';

export function numbers(some: Partial<SessionNumbers> = {}): SessionNumbers {
  return {
    cost_usd: '0.43',
    cost_known: true,
    simulated_usd: '0',
    input_tokens: 10_400,
    output_tokens: 2_000,
    calls: 12,
    hits: 3,
    saved_usd: '0.03',
    failed: 0,
    running: 0,
    tokens_per_s: null,
    latency_s: [],
    ...some
  };
}

export function budget(some: Partial<Budget> = {}): Budget {
  return {
    scope: 'session',
    spent_usd: '0.43',
    reserved_usd: '0',
    hard_usd: '5',
    soft_usd: '4',
    level: 'ok',
    ...some
  };
}

export function running(some: Partial<Running> = {}): Running {
  return {
    call_id: 'c9',
    model: 'sim/large',
    rung: 'sim/large',
    started_at: 1_763_755_200,
    elapsed_s: 1.5,
    output_tokens: 96,
    ttft_s: 0.31,
    cell_id: 'cell-1',
    notebook: null,
    shared: false,
    stoppable: true,
    ...some
  };
}

export function call(some: Partial<Call> = {}): Call {
  return {
    call_id: 'c1',
    started_at: 1_763_755_100,
    model: 'sim/large',
    rung: 'sim/large',
    source: 'model',
    status: 'done',
    error: null,
    feature: null,
    ttft_s: 0.31,
    latency_s: 1.46,
    cost_usd: '0.0012',
    saved_usd: null,
    input_tokens: 412,
    output_tokens: 96,
    cell_id: 'cell-1',
    notebook: null,
    route: null,
    reason: null,
    simulated: true,
    ...some
  };
}

export function endpoint(some: Partial<Endpoint> = {}): Endpoint {
  return {
    name: 'sim',
    models: [{ model: 'large', breaker: 'closed' }],
    error_rate: 0,
    attempts: 12,
    requests_left: null,
    tokens_left: null,
    engine: null,
    ...some
  };
}

export function state(some: Partial<State> = {}): State {
  return {
    session: numbers(),
    today: { cost_usd: '0.43', calls: 12 },
    budgets: [],
    running: [],
    calls: [],
    endpoints: [],
    cache_mode: null,
    ...some
  };
}

export function snapshot(some: Partial<State> = {}, seq = 0, notebook: string | null = null): Snapshot {
  const kernel = { nbllm: '0.1.0', session: 'ab12', started_at: 1_763_755_000, pid: 4711 };
  return { v: 1, type: 'snapshot', seq, kernel, notebook, state: state(some) };
}

export function delta(seq: number, some: Partial<State> = {}): Delta {
  return { v: 1, type: 'delta', seq, state: some };
}

export function badge(some: Partial<Badge> = {}): Badge {
  return { v: 1, model: 'sim/large', cost_usd: '0.0012', source: 'model', call_id: 'c1', ...some };
}
