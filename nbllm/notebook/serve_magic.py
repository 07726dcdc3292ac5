"""%serve: model servers on this machine as endpoints of the session; apps in serve_apps.py. What it takes is in serve_manual.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, no_var_expand

from nbllm.notebook.flags import parse
from nbllm.notebook.serve_manual import APPS, EXPORT, OWN, SERVE, VERBS
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from nbllm.engines import Engine, EngineEvent, EngineStatus, Plan
    from nbllm.notebook.serve_apps import AppVerbs
    from nbllm.notebook.views import View

_ORIGIN = "%serve"
_LINE_EVERY_S = 10.0
_OWN = {flag.dest for flag in (*APPS, *OWN)}
_PLANNED = ("python", "name", "served_name", "port", "force", "usd_per_hour")
_NAMES_IT = "Its endpoint gets a name with --name NAME, and nbllm.engines.running() has the server itself."
APP_VERBS = ("up", "parity", "load", "gateway")
_ATTACHED = ("name", "model", "api_key_env", "usd_per_hour")


@magics_class
class ServeMagics(Magics):
    """Start, look after and stop model servers and exported apps."""

    def __init__(self, shell: Any, client: Callable[[], Any], **kwargs: Any) -> None:
        super().__init__(shell, **kwargs)
        self._shell = shell
        self._client = client
        self._before: dict[str, tuple[Any, str]] = {}
        """Endpoint's name -> what the settings had under it before, and where from."""
        self._apps: AppVerbs | None = None

    @no_var_expand
    def serve(self, line: str) -> Any:
        """Start, look after or stop a server or an app."""
        parsed = parse(SERVE, line)
        verb, *words = parsed.words or ("status",)
        if not parsed.words and {"flow", "out"} <= parsed.values.keys():  # what IPython advises where %%serve has no body
            verb, words = "export", [parsed.values["flow"]]
        if verb not in VERBS:
            raise UsageError(f"%serve does not know {verb!r}. {did_you_mean(verb, VERBS)} (%serve? is the manual.)")
        if verb in APP_VERBS:
            _only_for(verb, parsed.values, set(self.apps.takes[verb]))
            self.apps.check(parsed.values)
            return getattr(self.apps, verb)(words, parsed.values)
        return getattr(self, f"_{verb}")(words, parsed.values)

    def _export(self, words: list[str], values: Mapping[str, Any]) -> View:
        from nbllm.notebook.serve_export import export_here, flow_named

        _only_for("export", values, {"out", "include", "examples", "force", "flow"})
        if len(words) != 1 or "out" not in values:
            raise UsageError("Write %serve export FLOW --out FOLDER. (%%serve? is the manual of the cell that does the same.)")
        return export_here(self._shell, self._client(), flow_named(words[0], self._shell.user_ns), values)

    @no_var_expand
    def serve_cell(self, line: str, cell: str) -> View:
        """Run the cell and export its flow."""
        __tracebackhide__ = True  # as in export_cell
        from nbllm.notebook.serve_export import export_cell

        return export_cell(self._shell, self._client(), parse(EXPORT, line).values, cell)

    @property
    def apps(self) -> AppVerbs:
        """The words about apps; loaded with the first of them."""
        if self._apps is None:
            from nbllm.notebook.serve_apps import AppVerbs

            self._apps = AppVerbs(self._shell, self._client)
        return self._apps

    def _start(self, words: list[str], values: Mapping[str, Any]) -> View:
        from nbllm.engines import plan_launch, start
        from nbllm.notebook.views import View

        if len(words) != 2:
            raise UsageError("Write %serve start ENGINE MODEL, for example %serve start sim large. (%serve? is the manual.)")
        _only_for("start", values, set(_PLANNED) | {"timeout_s"})
        own = {name: values[name] for name in _PLANNED if name in values}
        plan = plan_launch(words[0], words[1], _engine_options(values), **own)
        telling = Telling(self._shell, plan)
        timeout = {"timeout_s": values["timeout_s"]} if "timeout_s" in values else {}
        try:
            engine = start(plan, telling.event, **timeout)
        except BaseException as error:
            telling.failed()
            if isinstance(error, KeyboardInterrupt):
                said = [f"KeyboardInterrupt: the start of {plan.kind.title} was stopped; nothing of it is left."]
                # IPython asks an exception for this before it formats one itself.
                error._render_traceback_ = lambda: said  # type: ignore[attr-defined]
            raise
        self._use(engine)
        return View(f"{engine.title} is ready: {engine.model}", (), self._how_to_ask(engine))

    def _attach(self, words: list[str], values: Mapping[str, Any]) -> View:
        from nbllm.engines import attach
        from nbllm.notebook.views import View

        if len(words) != 1:
            raise UsageError("Write %serve attach URL, for example %serve attach http://127.0.0.1:8000/v1 --name lab.")
        _only_for("attach", values, set(_ATTACHED))
        engine = attach(words[0], **{name: values[name] for name in _ATTACHED if name in values})
        self._use(engine)
        return View(f"{engine.title} is attached: {engine.model}", (), self._how_to_ask(engine))

    def _status(self, words: list[str], values: Mapping[str, Any]) -> View:
        from nbllm.notebook.views import View

        _only_for("status", values, set())
        engines, apps = self._named(words)
        if not engines and not apps:
            hints = ("%serve start sim large starts a simulated one, %serve up FOLDER an exported app.",)
            return View("No model server and no app runs here.", (), hints)
        found = [engine.status() for engine in engines]
        notes = tuple(f"{status.name}: {status.trouble}" for status in found if status.trouble)
        tables = ((_table(found),) if found else ()) + self._app_tables(apps)
        return View("Servers and apps of this session" if apps else "Model servers of this session", tables, notes)

    def _app_tables(self, names: list[str]) -> tuple[Any, ...]:
        if not names:
            return ()
        from nbllm.notebook.app_view import status_table

        return status_table([app for app in self.apps.running() if app.name in names], self.apps.gateway_url)

    def _stop(self, words: list[str], values: Mapping[str, Any]) -> View:
        from nbllm.notebook.views import View

        _only_for("stop", values, set())
        engines, apps = self._named(words)
        for name in apps:  # first: they may be asking the engines
            self.apps.stop(name)
        for engine in engines:
            engine.begin_stop()
            endpoint, origin = self._before.pop(engine.name, (None, _ORIGIN))
            self._client().configure(origin=origin, endpoints={engine.name: endpoint})
        for engine in engines:
            engine.stop()
        names = ", ".join([*apps, *(engine.name for engine in engines)])
        return View(f"Stopped: {names}." if names else "Nothing was running.")

    def _named(self, words: list[str]) -> tuple[list[Engine], list[str]]:
        """Return the engines and the apps of those names, all without one. Raises UsageError for a name that none has."""
        from nbllm.engines import running

        engines = {engine.name: engine for engine in running()}
        apps = self.apps.names() if "nbllm.notebook.serve_apps" in sys.modules else []
        for word in words:
            if word.rstrip("/") not in {*engines, *apps}:
                raise UsageError(f"No server {word!r} runs here. {did_you_mean(word, [*engines, *apps])}")
        if not words:
            return list(engines.values()), apps
        wanted = list(dict.fromkeys(word.rstrip("/") for word in words))
        return [engines[name] for name in wanted if name in engines], [name for name in wanted if name in apps]

    def _use(self, engine: Engine) -> None:
        """Make it an endpoint of the current client for this session."""
        client, name = self._client(), engine.name
        known = f"endpoints.{name}"
        self._before.setdefault(name, (client.settings.endpoints.get(name), client.settings.origin(known)))
        client.configure(origin=_ORIGIN, endpoints={name: engine.endpoint})

    def _how_to_ask(self, engine: Engine) -> tuple[str, ...]:
        from nbllm.providers.hosts import PROVIDERS

        simulated = ("It is simulated: no model answers there.",) if engine.simulated else ()
        known = engine.name in PROVIDERS or engine.name == "sim"
        hides = (f"Until it is stopped it answers what is asked of {engine.name}/... here.",) if known else ()
        return (*simulated, *hides, f"Ask it with -m {engine.model}, or make it the default: %llm_config model={engine.model}")


class Telling:
    """Shows how a start goes: one display that is updated in a notebook, lines in a terminal."""

    def __init__(self, shell: Any, plan: Plan) -> None:
        self._plan = plan
        self._in_place = getattr(shell, "kernel", None) is not None
        self._handle: Any = None
        self._told: EngineEvent | None = None

    def event(self, event: EngineEvent) -> None:
        """Show an event."""
        if self._in_place:
            self._update(self._view(str(event)))
            return
        # A terminal keeps every line: the first holds the arithmetic, then each stage one, and long ones every 10 s.
        told = self._told
        if told is None or event.stage != told.stage or event.elapsed_s - told.elapsed_s >= _LINE_EVERY_S:
            self._told = event
            sys.stdout.write(f"{self._view(str(event)) if told is None else event}\n")

    def failed(self) -> None:
        """Show that it is over: a display that says "loading" would go on saying so in the notebook."""
        if self._handle is not None:
            self._update(self._view(f"{self._plan.name} was not started"))

    def _view(self, line: str) -> View:
        from nbllm.notebook.views import Table, View, columns

        fit = self._plan.fit
        rows = fit.sizing.rows() if fit.sizing else []
        arithmetic = (
            (Table(columns=columns("what", "how much"), rows=rows, caption=f"Does {self._plan.model} fit?"),) if rows else ()
        )
        forced = (f"{fit.problem} Started all the same (--force).",) if fit.problem else ()
        return View(line, arithmetic, (*fit.notes, *forced))

    def _update(self, view: View) -> None:
        from IPython.display import display

        data = view._repr_mimebundle_()
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # untyped in IPython
        else:
            self._handle.update(data, raw=True)


def _engine_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine's own options; --no-X is X switched off."""
    given = {name: value for name, value in values.items() if name not in _OWN}
    for name in [name for name in given if name.startswith("no_")]:
        del given[name]
        if name[3:] in given:
            raise UsageError(f"--{name[3:].replace('_', '-')} is given with its opposite.")
        given[name[3:]] = False
    return given


def _only_for(verb: str, values: Mapping[str, Any], own: set[str]) -> None:
    """Raise UsageError for an option that belongs to another word; `start` takes the engines' options too."""
    wrong = [name for name in values if name not in own and (verb != "start" or name in _OWN)]
    if wrong:
        flag = next(flag for flag in SERVE.flags if flag.dest == wrong[0])
        meant = _NAMES_IT if wrong[0] == "out" and verb in ("start", "attach") else f"It is for {flag.help}"
        raise UsageError(f"{flag.names[-1]} does not go with %serve {verb}. {meant} (%serve? is the manual.)")


def _table(found: list[EngineStatus]) -> Any:
    from nbllm.engines.status import as_row
    from nbllm.notebook import wording
    from nbllm.notebook.views import Table, columns

    told = [{**as_row(status), "uptime": wording.age(status.uptime_s)} for status in found]
    heads = dict.fromkeys(name for row in told for name in row)
    rows = [(head, *(row.get(head, "unknown") for row in told)) for head in heads]
    return Table(columns=columns("server", *(status.name for status in found)), rows=rows)
