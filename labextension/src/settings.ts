/** The user's settings, as schema/plugin.json describes them; a value that breaks the schema is replaced by its default. */

/** The four sections of the panel. */
export const SECTIONS = ['session', 'running', 'calls', 'endpoints'] as const;
export type Section = (typeof SECTIONS)[number];

export interface Settings {
  /** Decimals of money; amounts below ten cents have two significant digits at least. */
  currencyDecimals: number;
  /** Whether cells carry a badge. */
  badges: boolean;
  /** The sections that the panel shows, in order. */
  sections: readonly Section[];
  /** Most messages a second that the kernel may send. */
  updatesPerSecond: number;
  /** How many calls the panel lists. */
  callsShown: number;
}

export const DEFAULTS: Settings = {
  currencyDecimals: 2,
  badges: true,
  sections: SECTIONS,
  updatesPerSecond: 5,
  callsShown: 200
};

/** Return settings that can be relied on, from what the settings editor or a file holds. */
export function readSettings(given: { readonly [K in keyof Settings]?: unknown }): Settings {
  return {
    currencyDecimals: Math.round(within(given.currencyDecimals, 2, 6, DEFAULTS.currencyDecimals)),
    badges: typeof given.badges === 'boolean' ? given.badges : DEFAULTS.badges,
    sections: sections(given.sections),
    updatesPerSecond: within(given.updatesPerSecond, 1, 10, DEFAULTS.updatesPerSecond),
    callsShown: Math.round(within(given.callsShown, 10, 200, DEFAULTS.callsShown))
  };
}

function within(value: unknown, low: number, high: number, otherwise: number): number {
  return typeof value === 'number' && value >= low && value <= high ? value : otherwise;
}

function sections(value: unknown): readonly Section[] {
  if (!Array.isArray(value)) {
    return DEFAULTS.sections;
  }
  return [...new Set<unknown>(value)].filter((one): one is Section => SECTIONS.some(known => known === one));
}
