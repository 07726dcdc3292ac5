"""What a running app shows: where it is, how it is asked, what it was asked and cost so far."""

from __future__ import annotations

import contextlib

from nbllm.errors import AppError
from nbllm.notebook import wording
from nbllm.notebook.running_app import App
from nbllm.notebook.views import Table, View, columns
from nbllm.service.numbers import Numbers, numbers_on

KEY_SHOWN_S = 120.0
"""After that the key is no longer in the output, which may be saved and shared."""


def numbers_of(app: App) -> Numbers:
    """Ask an app for its numbers. Raises AppError when it does not answer."""
    status, body = app.get("/metrics")
    if status != 200:
        raise AppError(f"{app.name} does not tell its numbers: HTTP {status}.")
    return numbers_on(body.decode("utf-8", "replace"))


def line_of(numbers: Numbers) -> str:
    """Return the numbers of an app in one line."""
    if not numbers.requests:
        return "no request yet"
    refused = f", {numbers.refused:,} refused or failed" if numbers.refused else ""
    unknown = f" and {numbers.unknown_costs:,} of unknown cost" if numbers.unknown_costs else ""
    parts = [
        f"{wording.plural(numbers.requests, 'request')}{refused}",
        f"{wording.plural(numbers.calls, 'call')}, {numbers.hits:,} from the cache",
        f"{wording.usd(numbers.cost_usd)}{unknown}",
    ]
    return " · ".join([*parts, *([f"{numbers.running} under way"] if numbers.running else [])])


class Card:
    """Makes the views of one app: the key is in those of the first two minutes, until the first request came."""

    def __init__(self, app: App, flows: list[str]) -> None:
        self._app = app
        self._flows = flows
        self._numbers = Numbers()

    def view(self, *, key: bool = True) -> View:
        """Return how it is now."""
        app = self._app
        if app.state in {"ended", "stopped"}:
            return self._over()
        try:
            numbers = self._numbers = numbers_of(app)
        except AppError as error:
            return View(f"{app.name}: {error.summary}", (), (error.hint,))
        shown = key and not numbers.requests and app.uptime_s < KEY_SHOWN_S
        return View(
            f"{app.name} is up at {app.base_url}", (self._table(app.key if shown else "", numbers),), self._notes(shown=shown)
        )

    def _table(self, key: str, numbers: Numbers) -> Table:
        base = self._app.base_url
        flows = [f"POST {base}/flows/{name}" for name in self._flows]
        rows: list[tuple[str, str]] = [("flow", line) for line in flows]
        rows += [
            (
                "OpenAI SDK",
                f"base_url {base}/v1, model {' or '.join(f'flow/{name}' for name in self._flows) or 'as in its settings'}",
            ),
            ("try it", f"{base}/docs"),
            ("key", key or "was shown once; it ends with the app"),
            ("so far", line_of(numbers)),
        ]
        return Table(columns=columns("", ""), rows=rows)

    def _notes(self, *, shown: bool) -> tuple[str, ...]:
        return ("Send the key as Authorization: Bearer KEY. It is shown once and holds until the app stops.",) if shown else ()

    def _over(self) -> View:
        table = self._table("", self._numbers)
        if self._app.state == "stopped":
            return View(f"{self._app.name} is stopped", (table,))
        first, *lines = self._app.trouble.splitlines()
        return View(f"{self._app.name}: {first}", (table,), tuple(lines))

    def last_look(self) -> None:
        """Take in its numbers once more, before it is stopped."""
        with contextlib.suppress(AppError):
            self._numbers = numbers_of(self._app)


def status_row(app: App) -> dict[str, str]:
    """Return how an app is, as texts for a table."""
    row: dict[str, str] = {"state": app.state, "address": app.base_url, "uptime": wording.age(app.uptime_s)}
    if app.state == "up":
        try:
            row["so far"] = line_of(numbers_of(app))
        except AppError as error:
            row["so far"] = error.summary
    return row


def status_table(apps: list[App], gateway_url: str = "") -> tuple[Table, ...]:
    """Return how apps are, one beside the other, and where the gateway is."""
    told = {app.name: status_row(app) for app in apps}
    if gateway_url:
        told["gateway"] = {"state": "open", "address": gateway_url}
    if not told:
        return ()
    heads = dict.fromkeys(name for row in told.values() for name in row)
    rows = [(head, *(row.get(head, "") for row in told.values())) for head in heads]
    return (Table(columns=columns("app", *told), rows=rows),)
