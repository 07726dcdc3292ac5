"""The magics that look at, and set, what calls leave behind: settings, models, usage, plots, calls, cache, budgets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, no_var_expand

from nbllm.notebook import manuals
from nbllm.notebook.flags import parse
from nbllm.settings import reading
from nbllm.settings.flags import Manual, Parsed
from nbllm.settings.option import BadValue
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from nbllm.core.ports import Filter
    from nbllm.notebook.views import View

_ORIGIN = "%llm_config"


@magics_class
class BookMagics(Magics):
    """Settings and books of the current client. Each magic parses, makes one call and returns a view."""

    def __init__(self, shell: Any, client: Callable[[], Any], **kwargs: Any) -> None:
        super().__init__(shell, **kwargs)
        self._client = client
        self._before: dict[str, tuple[Any, str]] = {}

    @no_var_expand
    def llm_config(self, line: str) -> View:
        """Show the settings, or set some."""
        from nbllm.notebook import tables

        parsed = parse(manuals.CONFIG, re.sub(r"(?<=\w)\s*=\s*(?=\S)", "=", line))
        client = self._client()
        words = parsed.words
        if "reset" in parsed.values or words[:1] == ("reset",):
            names = words if "reset" in parsed.values else words[1:]
            reset = self._reset(client, names)
            return tables.config_view(client.settings, only=reset, title="Reset")
        if not words:
            return tables.config_view(client.settings)
        values = dict(_assignment(word, client.settings) for word in words)
        self._set(client, values)
        return tables.config_view(client.settings, only=tuple(values), title="Set for this session")

    def _set(self, client: Any, values: dict[str, str]) -> None:
        before = client.settings
        flat = before.flat()
        client.configure(origin=_ORIGIN, **values)
        after = client.settings.flat()
        for name in set(flat) | set(after):
            if client.settings.origin(name) == _ORIGIN and before.origin(name) != _ORIGIN:
                self._before.setdefault(name, (flat.get(name), before.origin(name)))

    def _reset(self, client: Any, names: tuple[str, ...]) -> tuple[str, ...]:
        """Give back what was there before %llm_config set it, for some settings or for all, and return their names."""
        for name in names:
            if name not in self._before:
                hint = f"It set {', '.join(self._before)}." if self._before else "It has set nothing."
                raise UsageError(f"%llm_config has not set {name!r} in this session. {hint}")
        reset = names or tuple(self._before)
        for name in reset:
            value, origin = self._before.pop(name)
            client.configure(origin=origin, **{name: value})
        return reset

    @no_var_expand
    def llm_models(self, line: str) -> View:
        """List the models that can be asked."""
        from nbllm.notebook import tables

        parsed = parse(manuals.MODELS, line)
        return tables.models_view(self._client(), " ".join(parsed.words))

    @no_var_expand
    def llm_usage(self, line: str) -> View:
        """Sum up calls."""
        from nbllm.notebook import tables

        parsed = parse(manuals.USAGE, line)
        by = _one_word(manuals.USAGE, parsed, manuals.GROUPS, default="model")
        client = self._client()
        return tables.usage_view(client, by, filter_of(parsed.values, client.session))

    @no_var_expand
    def llm_plot(self, line: str) -> Any:
        """Plot calls."""
        from nbllm.notebook.plot_view import plot_view

        parsed = parse(manuals.PLOT, line)
        kind = _one_word(manuals.PLOT, parsed, manuals.PLOTS)
        client = self._client()
        where = filter_of(parsed.values, client.session)
        return plot_view(kind, client, where, save=parsed.values.get("save"), options=_plot_options(kind, parsed, client))

    def llm_calls(self, line: str) -> View:
        """List calls, show one, or forget recorded texts."""
        from nbllm.notebook import call_tables

        parsed = parse(manuals.CALLS, line)
        client = self._client()
        if parsed.words[:1] == ("forget",):
            return _forget(client, parsed)
        if parsed.words:
            return call_tables.call_view(client, _call_named(client, _only_word(manuals.CALLS, parsed)))
        return call_tables.calls_view(client, filter_of(parsed.values, client.session), parsed.values.get("limit", 20))

    @no_var_expand
    def llm_cache(self, line: str) -> View:
        """Show the cache, or purge some of it."""
        from nbllm.notebook import tables
        from nbllm.notebook.views import View

        parsed = parse(manuals.CACHE, line)
        client = self._client()
        which = {name: parsed.values[name] for name in ("key_prefix", "model", "tag", "older_than_s") if name in parsed.values}
        if not parsed.words:
            if which or "all" in parsed.values:
                raise UsageError(
                    "To delete entries write %llm_cache purge and which: --tag, --model, --older-than, --key or --all."
                )
            return tables.cache_view(client, parsed.values.get("limit", 20))
        _one_word(manuals.CACHE, parsed, ("purge",))
        if not which and "all" not in parsed.values:
            raise UsageError("Say what to purge: --tag T, --model M, --older-than 7d, --key K, or --all.")
        if which and "all" in parsed.values:
            raise UsageError("Give --all, or say which entries, not both.")
        gone = client.semantic.purge(**which)
        return View(f"{gone:,} stored {'answer was' if gone == 1 else 'answers were'} deleted.")

    @no_var_expand
    def llm_budget(self, line: str) -> View:
        """Show budgets, or set one."""
        from nbllm.notebook import tables

        parsed = parse(manuals.BUDGET, line)
        client = self._client()
        if not parsed.words:
            if parsed.values:
                raise UsageError("--soft goes with a budget: %llm_budget session 5.00 --soft 80%")
            return tables.budget_view(client)
        return tables.budget_view(client, (_set_budget(client, parsed),))


def _plot_options(kind: str, parsed: Parsed, client: Any) -> dict[str, Any]:
    """Return what one kind of plot takes besides the calls; UsageError for a flag of another kind."""
    if kind == "breakeven":
        from nbllm.notebook.breakeven_plot import options_of

        return options_of(parsed.values, client)
    wrong = next((flag for flag in manuals.BREAKEVEN if flag.dest in parsed.values), None)
    if wrong is not None:
        raise UsageError(f"{wrong.names[0]} goes with %llm_plot breakeven only.")
    return {}


def _set_budget(client: Any, parsed: Parsed) -> str:
    from nbllm.notebook import wording

    kind, *rest = parsed.words
    if kind not in manuals.BUDGETS:
        raise UsageError(f"There is no budget {kind!r}. {did_you_mean(kind, manuals.BUDGETS)}")
    named = kind in {"feature", "user"}
    if len(rest) != (2 if named else 1):
        raise UsageError(
            f"Write %llm_budget {kind} {'NAME ' if named else ''}AMOUNT, or off for no limit. For example {_example(kind)}"
        )
    try:
        amount = reading.usd_or_off(rest[-1])
    except BadValue as error:
        raise UsageError(f"%llm_budget {kind}: {error.problem}.") from None
    soft = parsed.values.get("soft")
    if soft is not None and amount is None:
        raise UsageError("--soft needs an amount: a budget that is off has no soft limit.")
    share = _share(soft, amount)
    client.set_budget(kind, amount, name=rest[0] if named else None, soft=share)
    what = f"{kind} {rest[0]}" if named else kind
    warning = f" All budgets warn once when {share:.0%} is used." if share is not None else ""
    warning += _spent_already(client, kind, rest[0] if named else "", amount)
    return f"The {what} budget is off." if amount is None else f"The {what} budget is {wording.usd(amount)}.{warning}"


def _spent_already(client: Any, kind: str, name: str, amount: Decimal | None) -> str:
    """Return what follows where more is spent already than the budget allows, else ""."""
    from nbllm.notebook import wording

    line = next((b for b in client.budget_lines() if b.scope.partition(":")[0] == kind and b.scope.endswith(name)), None)
    spent = line.spent_usd if line is not None else None
    if amount is None or spent is None or spent < amount:
        return ""
    return f" {wording.usd(spent)} is spent already: every call that costs money is refused until you raise it."


def _share(soft: Decimal | float | None, amount: Decimal | None) -> float | None:
    """Return the soft limit as a share of the amount; a share stays as it is. UsageError when it is above the amount."""
    from nbllm.notebook import wording

    if not isinstance(soft, Decimal) or amount is None:
        return float(soft) if soft is not None else None
    if soft > amount or not soft:
        raise UsageError(f"--soft {wording.usd(soft)} must be above $0 and at most the budget of {wording.usd(amount)}.")
    return float(soft / amount)


def _example(kind: str) -> str:
    return {"feature": "%llm_budget feature summaries 1.00", "user": "%llm_budget user ada 1.00"}.get(
        kind, f"%llm_budget {kind} 5.00"
    )


def filter_of(values: Mapping[str, Any], session: str) -> Filter:
    """Return which calls are meant: those of this session, unless --all."""
    from nbllm.core.ports import Filter

    return Filter(
        session=None if values.get("all") else session,
        model=values.get("model"),
        feature=values.get("feature"),
        user=values.get("user"),
        since=reading.unix_since(values.get("since"), time.time()),
    )


def _assignment(word: str, settings: Any) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if equals and key:
        return key, value
    known = settings.flat()
    if word in known:
        raise UsageError(f"{word} needs a value: write %llm_config {word}=VALUE, or %llm_config --reset {word}.")
    raise UsageError(f"{word!r} is no setting: write key=value, for example %llm_config deadline_s=30. {did_you_mean(word, known)}")


def _only_word(manual: Manual, parsed: Parsed) -> str:
    if len(parsed.words) != 1:
        raise UsageError(
            f"{manual.name} takes one of them at a time, not {' '.join(parsed.words)!r}. {manual.name}? is the manual."
        )
    return parsed.words[0]


def _one_word(manual: Manual, parsed: Parsed, known: tuple[str, ...], *, default: str = "") -> str:
    if not parsed.words and default:
        return default
    if not parsed.words:
        raise UsageError(f"{manual.name} needs one of {', '.join(known)}.")
    word = _only_word(manual, parsed)
    if word not in known:
        raise UsageError(f"{manual.name} does not know {word!r}. {did_you_mean(word, known)}")
    return word


def _call_named(client: Any, part: str) -> Any:
    from nbllm.core.ports import Filter

    found = [c for c in client.ledger.calls(Filter(), limit=10_000) if c.call_id.endswith(part) or c.call_id.startswith(part)]
    if not found:
        raise UsageError(f"There is no call {part!r} among the newest 10,000. %llm_calls lists them.")
    exact = [c for c in found if c.call_id == part]
    if len(found) > 1 and not exact:
        raise UsageError(f"{len(found)} calls fit {part!r}; give more of its id.")
    return (exact or found)[0]


def _forget(client: Any, parsed: Parsed) -> View:
    from nbllm.notebook.views import View

    words = parsed.words[1:]
    if bool(words) == bool(parsed.values.get("all")):
        raise UsageError("Write %llm_calls forget ID, or %llm_calls forget --all for the recorded texts of all calls.")
    gone = client.recordings.forget(call_id=_call_named(client, words[0]).call_id) if words else client.recordings.forget()
    return View(
        f"The recorded texts of {gone:,} {'call was' if gone == 1 else 'calls were'} deleted; the numbers stay in the ledger."
    )
