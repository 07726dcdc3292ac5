"""What the sides of a comparison may do differently without a trace in the replayed calls: budgets, routes, semantic cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from nbllm.service.parity import Difference, RunTrace
from nbllm.settings import Settings
from nbllm.settings.route_tables import FILES as ROUTE_FILES
from nbllm.settings.route_tables import table_of
from nbllm.settings.semantic import FILES as SEMANTIC_FILES

_OFF = {"semantic_cache.mode": "off"}


def settings_differences(notebook: Settings, app: Settings) -> list[Difference]:
    """Return what differs of budgets, of the routes that the app has, and of the semantic cache. Files are compared by content."""
    ours, theirs = _compared(notebook, app), _compared(app, app)
    return [
        Difference("settings", name, str(ours.get(name, "not set")), str(theirs.get(name, "not set")))
        for name in sorted({*ours, *theirs})
        if str(_plain(ours.get(name))) != str(_plain(theirs.get(name)))
    ]


def notes_on(runs: Sequence[RunTrace], settings: Sequence[Settings]) -> tuple[str, ...]:
    """Return what a reader should know of how runs were replayed. settings: of the sides that are known."""
    notes = []
    followed = [call.followed for run in runs for call in run.calls if call.followed]
    compared = "; what the routes and their plans say was compared" if len(settings) > 1 else ""
    if followed:
        routes, calls = ", ".join(sorted(set(followed))), f"{len(followed)} call{'s' if len(followed) > 1 else ''}"
        notes.append(
            f"As recorded, not chosen anew: the model in {calls} of the route {routes}. Helpers, log probabilities, users, prices "
            f"and times cannot be replayed{compared}."
        )
    if any(one.semantic_cache.mode == "on" for one in settings):
        compared = "; its settings and plan were compared" if len(settings) > 1 else ""
        notes.append(f"The semantic cache was off: whom it serves hangs on what was asked before{compared}.")
    return tuple(notes)


def _compared(settings: Settings, app: Settings) -> dict[str, Any]:
    flat = settings.flat()
    found = {name: value for name, value in flat.items() if name.startswith("budget.") and value not in (None, {}, ())}
    found.pop("budget.soft", None)
    for name in app.routes:
        if name in settings.routes:
            found |= dict(_route(f"routes.{name}", settings.routes[name]))
    semantic = {name: value for name, value in flat.items() if name.startswith("semantic_cache.")}
    if semantic["semantic_cache.mode"] == "off":
        semantic = _OFF
    for name in SEMANTIC_FILES:
        if semantic.get(f"semantic_cache.{name}") is not None:
            semantic[f"semantic_cache.{name}"] = content_of(semantic[f"semantic_cache.{name}"])
    return {name: value for name, value in (found | semantic).items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a value as it is the same however it was written: 5, 5.0 and 5.00 are one amount."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, Decimal | float | int) and not isinstance(value, bool):
        return f"{Decimal(str(value)).normalize():f}"
    return value


def _route(name: str, spec: Any) -> Iterator[tuple[str, Any]]:
    table: Mapping[str, Any] = {"models": list(spec)} if isinstance(spec, tuple) else table_of(spec)
    for key, value in table.items():
        yield f"{name}.{key}", content_of(value) if key in ROUTE_FILES else value


def content_of(file: str) -> str:
    """Return what tells a file's content from another's, whatever it is called."""
    try:
        return f"sha256 {sha256(Path(file).read_bytes()).hexdigest()[:12]}"
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
