"""The plot of API price against a machine of one's own, over tokens a day."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from IPython.core.error import UsageError
from matplotlib.axes import Axes
from numpy.typing import NDArray

from nbllm.core.breakeven import BreakEven, Machine, Mix, break_even, busy_pace
from nbllm.core.ports import Series
from nbllm.core.pricing import Price
from nbllm.notebook import style, wording
from nbllm.providers.catalog import Catalog
from nbllm.settings.suggest import did_you_mean

_NO_CALLS = "No model has answered a call yet that could be compared.\nAsk something with %%llm, or take in more calls: --all."
_NO_PRICE = (
    "What these calls would cost at an API is not known: none of them was billed.\n"
    "Name a model whose price is known: --api openai/gpt-4o-mini"
)
_API = style.Look("API", style.BLUE, "-", "o", "")
_OWN = style.Look("own machine", style.ORANGE, "--", "s", "")
_ROWS = 2
_STEPS = 12
"""Machines that the plot shows at most."""


def breakeven(
    ax: Axes,
    series: Series,
    *,
    usd_per_hour: Decimal | float,
    tokens_per_s: float | None = None,
    use: float = 1.0,
    price: Price | None = None,
    api: str = "",
    own: str = "",
) -> Axes:
    """Draw what tokens cost a day at an API and on a machine of one's own, over tokens a day, and mark where they cross.

    series: the calls whose mix of input and output is taken, with costs. usd_per_hour: of the machine. tokens_per_s: what it
    writes; None: as the calls of `own`, an endpoint's name, measured it. use: share of the day at that pace, 0 to 1. price, api: a
    list price and its model instead of what was billed.
    """
    pace = tokens_per_s if tokens_per_s is not None else pace_of(series, own)
    machine = Machine(usd_per_hour=Decimal(str(usd_per_hour)), tokens_per_s=pace, use=use)
    mix = mix_of(series, billed=price is None)
    found = break_even(mix, machine, price)
    if found is None:
        style.dress(ax, "Break-even", f"n = {mix.calls:,}", "", "")
        return style.say(ax, _NO_PRICE if mix.tokens or answered(series).any() else _NO_CALLS)
    title, why = _verdict(found, machine)
    share = f"{1 - mix.output_share:.0%} in, {mix.output_share:.0%} out, n = {mix.calls:,}"
    numbers = f"{why} · {share}{_simulated(series, api, billed=price is None)}"
    style.dress(ax, title, numbers, "tokens a day, in and out", "US dollars a day", rows=_ROWS)
    _draw(ax, found, mix, machine, api)
    style.legend(ax, _ROWS)
    return ax


def options_of(values: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """Return what `breakeven` takes from %llm_plot's flags and the engines that run here. UsageError when something is missing."""
    engine = _engine(values.get("engine"))
    usd_per_hour = values.get("usd_per_hour", engine.usd_per_hour if engine else None)
    if usd_per_hour is None:
        raise UsageError(
            "What does your machine cost an hour? Say it here, %llm_plot breakeven --usd-per-hour 1.20, or at %serve start."
        )
    pace = values.get("tokens_per_s")
    if pace is None and engine is not None:
        pace = engine.status().tokens_per_s or None  # 0 while it idles: then what the ledger measured
    options: dict[str, Any] = {"usd_per_hour": usd_per_hour, "tokens_per_s": pace, "own": engine.name if engine else ""}
    if "use" in values:
        options["use"] = values["use"]
    if "api" in values:
        options |= {"api": values["api"], "price": _list_price(client, values["api"])}
    return options


def _engine(name: str | None) -> Any:
    from nbllm.engines import running

    found = {engine.name: engine for engine in running()}
    if name is None:
        priced = [engine for engine in found.values() if engine.usd_per_hour is not None]
        return next(iter(priced or found.values()), None)
    if name not in found:
        raise UsageError(f"No server {name!r} runs here. {did_you_mean(name, found)}")
    return found[name]


def _list_price(client: Any, model: str) -> Price:
    price = Catalog(client.settings.endpoints, os.environ).rung(model).price
    if price is None:
        raise UsageError(f"--api {model}: no price is known for it. %llm_models shows prices.")
    return price


def answered(series: Series) -> NDArray[np.bool_]:
    """Return which calls a model answered, with known counts."""
    known: NDArray[np.bool_] = ~series.hit & ~series.failed & ~np.isnan(series.input_tokens) & ~np.isnan(series.output_tokens)
    return known


def mix_of(series: Series, *, billed: bool = True) -> Mix:
    """Return what the answered calls were made of; billed: only those that cost something, with their cost."""
    chosen = answered(series)
    if billed:
        chosen = chosen & (np.nan_to_num(series.cost_usd) > 0)
    n = int(np.count_nonzero(chosen))
    started = series.started_at[chosen]
    days = float(started[-1] - started[0]) / 86_400 if n else 0.0
    return Mix(
        input_tokens=int(series.input_tokens[chosen].sum()),
        output_tokens=int(series.output_tokens[chosen].sum()),
        cost_usd=Decimal(repr(float(series.cost_usd[chosen].sum()))) if billed and n else None,
        calls=n,
        days=max(1.0, days),
    )


def pace_of(series: Series, own: str) -> float | None:
    """Return the tokens a second that an endpoint wrote while it worked on these calls; None when it answered none."""
    ours = np.array([name.partition("/")[0] == own for name in series.models], dtype=bool)
    if not own or not ours.any():
        return None
    chosen = answered(series) & ours[series.model]
    return busy_pace(series.started_at[chosen], series.latency_s[chosen], series.output_tokens[chosen])


def _verdict(found: BreakEven, machine: Machine) -> tuple[str, str]:
    """Return where the lines cross, or that they do not, and what that rests on."""
    at, capacity = found.tokens_per_day, found.capacity
    cost = f"a machine at {wording.usd(machine.usd_per_hour)} an hour"
    if at is None and capacity is None:
        return "Break-even: never", "the API costs nothing"
    if at is None:
        own = found.machine_usd_per_day / Decimal(repr(capacity)) * 1_000_000
        return "Break-even: never", f"own at its limit: {wording.usd(own)} a million"
    title = f"Break-even: own is cheaper from {wording.many(at)} tokens a day"
    return title, f"if {cost} keeps up" if capacity is None else f"{at / capacity:.0%} of what {cost} serves"


def _draw(ax: Axes, found: BreakEven, mix: Mix, machine: Machine, api: str) -> None:
    right = _right_end(found)
    x = np.linspace(0, right, 600)
    if found.capacity is not None:  # so that each step stands straight
        steps = found.capacity * np.arange(1, _STEPS)
        x = np.unique(np.concatenate((x, steps, steps * (1 + 1e-9))))
        x = x[x <= right]
    own = np.array([found.own_usd(float(at)) for at in x])
    bought = np.array([found.api_usd(float(at)) for at in x])
    at_api = f"{api or 'API, as billed'}: {wording.usd(found.api_usd_per_mtok)} a million"
    a_day = f"own: {wording.usd(machine.usd_per_day)} a day and machine"
    ax.plot(x, bought, color=_API.colour, linestyle=_API.dash, linewidth=2, label=at_api)
    ax.plot(x, own, color=_OWN.colour, linestyle=_OWN.dash, linewidth=2, label=a_day)
    for low, high in found.cheaper(right):
        inside = (x >= low) & (x <= high)
        ax.fill_between(x[inside], own[inside], bought[inside], color=style.GREEN, alpha=0.12, linewidth=0)
    top = max(float(own.max()), float(bought.max())) * 1.12
    at = found.tokens_per_day
    if at is not None:
        y = found.api_usd(at)
        ax.plot([at, at], [0, y], color=style.FAINT, linewidth=0.9, linestyle=":", zorder=1)
        ax.plot(at, y, "D", markersize=8, color=style.GREEN, markeredgecolor=style.GROUND, zorder=5, linestyle=" ",
                label=f"crossing: {wording.many(at)} a day")  # fmt: skip
    if found.capacity is not None and found.capacity <= right:
        busy = "" if machine.use == 1 else f", {machine.use:.0%} of the day"
        pace = f"one machine's limit: {wording.many(found.capacity)} ({machine.tokens_per_s:,.3g} tok/s{busy})"
        ax.axvline(found.capacity, color=style.FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1, label=pace)
    if 0.02 * right < mix.tokens_per_day <= right:
        ax.plot(mix.tokens_per_day, 0, "^", markersize=9, color=style.INK, clip_on=False, zorder=6, linestyle=" ",
                label=f"these calls: {wording.many(mix.tokens_per_day)} a day")  # fmt: skip
    ax.set_xlim(0, right)
    ax.set_ylim(0, top)
    ax.xaxis.set_major_formatter(lambda value, _: wording.many(value) if value else "0")
    ax.yaxis.set_major_formatter(lambda value, _: f"${value:,.6g}")


def _right_end(found: BreakEven) -> float:
    """Return where the plot ends: past the crossing, and past the first machine's limit where both can be seen."""
    at, capacity = found.tokens_per_day, found.capacity
    if at is None:
        return 2.2 * capacity if capacity else 1e6
    if capacity is None or capacity > 5 * at:
        return 2.6 * at
    return max(2.2 * at, 1.35 * capacity)


def _simulated(series: Series, api: str, *, billed: bool) -> str:
    names = [name.startswith("sim/") for name in series.models if "/" in name] if billed else [api.startswith("sim/")]
    return ", simulated" if names and all(names) else ", some simulated" if any(names) else ""
