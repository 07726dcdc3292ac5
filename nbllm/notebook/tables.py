"""What the magics show: one function per magic, from the client's numbers to a View. Calls are in nbllm.notebook.call_tables."""

from __future__ import annotations

import math
import os
import time
from decimal import Decimal
from itertools import islice
from typing import Any

from nbllm.core.ports import Filter, Stored, UsageRow
from nbllm.core.usage_table import named_group, simulated_note
from nbllm.notebook import wording
from nbllm.notebook.views import Table, View, columns
from nbllm.providers.catalog import Catalog
from nbllm.providers.hosts import PROVIDERS

_MODELS_SHOWN = 60


def config_view(settings: Any, *, only: tuple[str, ...] | None = None, title: str = "Settings") -> View:
    """Return every setting, its value and what set it, what was set first; with `only`, those that were just changed."""
    explained = settings.explain()
    if only is not None:
        rows = [(e.name, e.value, e.origin, e.help) for e in explained if any(_is_meant(e.name, name) for name in only)]
        table = Table(columns=columns("setting", "value", "set by", "what it is"), rows=rows, empty="%llm_config had set nothing.")
        return View(title, (table,), (*settings.notes, "%llm_config shows all settings; %llm_config --reset takes back."))
    changed = [(e.name, e.value, e.origin) for e in explained if e.origin != "default"]
    rest = [(e.name, e.value, e.help) for e in explained if e.origin == "default"]
    blocks = (
        Table(
            columns=columns("setting", "value", "set by"), rows=changed, caption="Set", empty="Nothing is set; all are defaults."
        ),
        Table(columns=columns("setting", "value", "what it is"), rows=rest, caption="Defaults", empty="None: all are set."),
    )
    hint = (
        "Set one for this session: %llm_config deadline_s=30. "
        "For good: nbllm.toml, [tool.nbllm] in pyproject.toml, or NBLLM_* variables."
    )
    return View(title, blocks, (*settings.notes, hint))


def _is_meant(name: str, given: str) -> bool:
    """Whether a setting is the one that was given: by its own name, or as variables write it (budget_session_usd)."""
    return name == given or name.replace(".", "_") == given.replace(".", "_") or name.startswith(f"{given}.")


def models_view(client: Any, part: str = "") -> View:
    """Return the models that can be asked from here; with `part`, those of that provider, else those with it in their name."""
    catalog = Catalog(client.settings.endpoints, os.environ)
    named = part.casefold().rstrip("/")
    of_one = named in catalog.names()
    known = catalog.models(named) if of_one else client.models()
    rows = known if of_one else [row for row in known if part.casefold() in row.id.casefold()]
    # The models of one provider share its key: said once, it leaves room for their names.
    heads = columns("model", "#in, per 1M", "#out, per 1M", "#context", *(() if of_one else ("key",)))
    shown = [_model_row(row)[: len(heads)] for row in rows[:_MODELS_SHOWN]]
    if of_one:
        empty = f"The price list has no model of {named}; name one as its documentation does: -m {named}/MODEL."
    else:
        empty = f"No model that can be asked now has {part!r} in its name." if part else "No models are known."
    notes = ["Prices are USD per million tokens. Any other model of an endpoint or provider can be named too: -m provider/model."]
    if of_one and rows:
        notes.insert(0, f"Key: {_model_row(rows[0])[-1]}.")
    if len(rows) > len(shown):
        notes.insert(0, f"{len(shown)} of {len(rows):,} are shown; %llm_models TEXT narrows them down.")
    providers = () if of_one or (rows and part) else (_providers(),)
    title = f"{wording.plural(len(rows), 'model')} {f'of {named}' if of_one else 'to ask'}"
    return View(title, (Table(columns=heads, rows=shown, empty=empty), *providers), tuple(notes))


def _providers() -> Table:
    """Return the known providers and the variable that each reads its key from."""
    others = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY", "cohere": "COHERE_API_KEY"}
    keys = {name: provider.key_envs for name, provider in PROVIDERS.items()} | {name: (env,) for name, env in others.items()}
    rows = [
        (name, " or ".join(envs), "set" if any(os.environ.get(env, "").strip() for env in envs) else "not set")
        for name, envs in sorted(keys.items())
    ]
    caption = "Providers, and the variable that each reads its key from; %llm_models NAME lists a provider's models"
    return Table(columns=columns("provider", "key", "now"), rows=rows, caption=caption)


def _model_row(row: Any) -> tuple[str, ...]:
    if row.simulated:
        key = "none needed (simulated)"
    elif not row.key:
        key = "none needed"
    else:
        key = f"{' or '.join(row.key)}{' (set)' if row.key_set else ' (not set)' if row.key_set is False else ''}"
    prices = (
        ("unknown", "unknown")
        if row.price is None
        else (wording.usd(row.price.input_usd_per_mtok), wording.usd(row.price.output_usd_per_mtok))
    )
    return (row.id, *prices, wording.number(row.context_tokens), key)


def usage_view(client: Any, by: str, where: Filter) -> View:
    """Return calls, tokens, cost and savings summed up by one column."""
    rows, models = client.ledger.usages((by, "model"), where)
    heads = columns(by, "#calls", "#failed", "#hits", "#in", "#out", "#cost", "#saved")
    table = Table(
        columns=heads, rows=[_usage_row(row) for row in rows], empty="No call fits yet. Take in more: --all, --since all."
    )
    scope = "this session" if where.session else "all sessions"
    notes = []
    if any(row.estimated_usd for row in rows):
        notes.append("~ part of the cost is estimated: the provider's own count did not come.")
    unknown = sum(row.unknown_cost_calls for row in rows)
    if unknown:
        notes.append(f"The cost of {wording.plural(unknown, 'call')} is unknown and not in the sums.")
    note = simulated_note(models)
    return View(f"Usage by {by}, {scope}", (table,), (*notes, *([note] if note else [])))


def _some_simulated(client: Any, where: Filter) -> bool:
    return any((row.group or "").startswith("sim/") for row in client.ledger.usage("model", where))


def _usage_row(row: UsageRow) -> tuple[str, ...]:
    cost = ("~" if row.estimated_usd else "") + wording.usd(row.cost_usd)
    unknown = f" + {row.unknown_cost_calls} unknown" if row.unknown_cost_calls else ""
    counts = (row.calls, row.failed, row.hits, row.input_tokens, row.output_tokens)
    saved = f"{wording.usd(row.saved_usd)}, {wording.seconds(row.saved_s)}" if row.hits else "-"
    return (named_group(row.group), *map(wording.number, counts), cost + unknown, saved)


def cache_view(client: Any, limit: int, *, now: float | None = None) -> View:
    """Return the cache: how much is in it, what it saved, and its newest entries."""
    stats = client.store.stats()
    now = time.time() if now is None else now
    oldest_s = client.settings.cache_max_age_days * 86_400
    rows = [_entry_row(entry, now, oldest_s) for entry in islice(client.store.entries(), limit)]
    heads = columns("key", "model", "#age", "#fresh for", "#size", "#a hit saves", "tags")
    used = f"{wording.size(stats.size_bytes)} of {wording.size(stats.size_limit_bytes)}"
    title = f"{wording.plural(stats.entries, 'stored answer')}, {used}"
    notes = [_saved(client), f"Kept in {stats.directory}", *wording.simulated(any(row[1].startswith("sim/") for row in rows))]
    if stats.damaged:
        notes.append(f"{wording.plural(stats.damaged, 'damaged entry', 'damaged entries')} set aside; each counted as a miss.")
    if len(rows) < stats.entries:
        notes.append(f"The newest {len(rows)} are shown; -n {min(10_000, stats.entries)} shows more.")
    return View(
        title, (Table(columns=heads, rows=rows, empty="The cache is empty: complete answers are kept as they come."),), tuple(notes)
    )


def _entry_row(entry: Stored, now: float, oldest_s: float) -> tuple[str, ...]:
    until = min(entry.created_at + oldest_s, math.inf if entry.expires_at is None else entry.expires_at)
    left = wording.age(until - now) if until > now else "expired"
    return (
        entry.key[:12],
        entry.model,
        wording.age(now - entry.created_at),
        left,
        wording.size(entry.size_bytes),
        f"{wording.usd(entry.cost_usd)}, {wording.seconds(entry.latency_s)}",
        ", ".join(entry.tags) or "-",
    )


def _saved(client: Any) -> str:
    """Return what hits saved, in this session and in all."""
    parts = [
        f"{name}: {wording.plural(row.hits, 'hit')} in {wording.plural(row.calls, 'call')}, "
        f"{wording.usd(row.saved_usd)} and {wording.seconds(row.saved_s)} saved"
        for name, where in (("This session", Filter(session=client.session)), ("all sessions", Filter()))
        for row in client.ledger.usage("total", where)
    ]
    return "; ".join(parts) + "." if parts else "No calls yet."


def budget_view(client: Any, said: tuple[str, ...] = ()) -> View:
    """Return every budget with what is spent and reserved, as text bars with their numbers."""
    rows = [_budget_row(line, client.session) for line in client.budget_lines()]
    heads = columns("budget", "#spent", "#reserved", "#soft", "#hard", "used")
    empty = f"No budget is set. This session has cost {wording.usd(client.spent_session_usd())}. Set one: %llm_budget session 5.00"
    request_usd = client.settings.budgets.request_usd
    notes: tuple[str, ...] = (f"One call may cost at most {wording.usd(request_usd)}.",) if request_usd is not None else ()
    notes += wording.simulated(_some_simulated(client, Filter(session=client.session)))
    return View("Budgets", (Table(columns=heads, rows=rows, empty=empty),), (*said, *notes))


def _budget_row(line: Any, session: str) -> tuple[str, ...]:
    spent, reserved = line.spent_usd or Decimal(0), line.reserved_usd or Decimal(0)
    used = spent + reserved
    if line.hard_usd is None:
        state = "no hard limit"
    else:
        share = float(used / line.hard_usd) if line.hard_usd else 1.0
        state = f"{wording.bar(share)} {share:.0%}" + (" used up" if used >= line.hard_usd else "")
    if line.soft_usd is not None and used >= line.soft_usd and (line.hard_usd is None or used < line.hard_usd):
        state += " over soft"
    kind, _, name = line.scope.partition(":")
    scope = "this session" if (kind, name) == ("session", session) else f"{kind} {name}".strip()
    return (scope, wording.usd(spent), wording.usd(reserved), _limit(line.soft_usd), _limit(line.hard_usd), state)


def _limit(amount: Decimal | None) -> str:
    return "-" if amount is None else wording.usd(amount)
