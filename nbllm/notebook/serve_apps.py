"""%serve up, parity, load and gateway: exported apps from a notebook. What they take is in nbllm.notebook.serve_manual."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from nbllm.core.recorded import Own
from nbllm.notebook import wording
from nbllm.notebook.app_keys import engine_variables, key_of_tier
from nbllm.notebook.app_view import Card
from nbllm.notebook.live_card import LiveCard
from nbllm.notebook.own_runs import own_runs
from nbllm.notebook.running_app import App, running, start_app
from nbllm.notebook.views import Text, View
from nbllm.settings import reading
from nbllm.settings.option import BadValue
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from nbllm.core.arrivals import LoadResult
    from nbllm.service.load import LoadTest
    from nbllm.service.parity import ParityReport
    from nbllm.service.recorded import RecordedRun

_PLAN = ("users", "seconds", "every_s", "ramp_s", "even", "limit_s")
_TICK_S = 0.25


class AppVerbs:
    """The words of %serve that are about apps."""

    takes: Mapping[str, frozenset[str]] = {
        "up": frozenset({"port", "home", "share", "out", "timeout_s"}),
        "parity": frozenset({"out"}),
        "load": frozenset({*_PLAN, "tier", "flow", "p50_s", "p95_s", "error_rate", "out", "save"}),
        "gateway": frozenset({"port", "out"}),
    }
    """The options of each word, by what they become."""

    def __init__(self, shell: Any, client: Callable[[], Any]) -> None:
        self._shell = shell
        self._client = client
        self._cards: dict[str, tuple[Card, LiveCard]] = {}
        self._gateway: Any = None

    # ------------------------------------------------------------------ up

    def up(self, words: list[str], values: Mapping[str, Any]) -> None:
        """Run an app, show where it is and how it does, and keep it where asked to. One that runs already is ended and run anew.

        So a cell may be run again, after another export too: what is shown and kept answers with the code that is there now.
        """
        from nbllm.service.replay import flows_named_in

        folder = _folder("up", words)
        if "home" in values and "share" in values:
            raise UsageError("--share is this notebook's home, --home another one: give one of them.")
        own = self._client().settings.home if "share" in values else folder.resolve() / ".state"
        home = Path(values.get("home", own)).expanduser()
        if any(app.folder == folder.expanduser().resolve() for app in running()):
            self.stop(folder.name)
        card = LiveCard(self._shell, View(f"{folder.name}: starting"))
        try:
            app = start_app(
                folder,
                home=home,
                port=values.get("port"),
                variables=engine_variables(folder),
                tick=lambda elapsed_s, line: _starting(card, folder.name, elapsed_s, line),
                **({"timeout_s": values["timeout_s"]} if "timeout_s" in values else {}),
            )
        except BaseException as error:
            card.end(View(f"{folder.name} did not start."))
            if isinstance(error, KeyboardInterrupt):
                said = [f"KeyboardInterrupt: the start of {folder.name} was stopped; nothing of it is left."]
                # IPython asks an exception for this before it formats one itself.
                error._render_traceback_ = lambda: said  # type: ignore[attr-defined]
            raise
        self._keep(values, app)
        views = Card(app, sorted(flows_named_in(folder)))
        self._cards[app.name] = (views, card)
        card.show(views.view())
        card.follow(lambda: (views.view(), app.state != "up"))

    def _keep(self, values: Mapping[str, Any], value: Any) -> None:
        if "out" in values:
            self._shell.push({values["out"]: value})

    @staticmethod
    def check(values: Mapping[str, Any]) -> None:
        """Raise UsageError for a variable that none can have, before anything is started."""
        if "out" in values:
            try:
                reading.identifier(values["out"])
            except BadValue as error:
                raise UsageError(f"-o {values['out']}: {error.problem}. {error.hint}".strip()) from None

    # ------------------------------------------------------------------ parity

    def parity(self, words: list[str], values: Mapping[str, Any]) -> View:
        """Replay recorded runs here and in the app; a difference makes the cell fail."""
        from nbllm.service.recorded import runs_to_replay
        from nbllm.service.replay import NotebookSide, app_runs, flows_named_in, parity

        folder = _folder("parity", words)
        client = self._client()
        here = {name: value for name, value in self._shell.user_ns.items() if getattr(value, "__nbllm_flow__", "") == name}
        served = flows_named_in(folder)
        runs, notes = runs_to_replay(own_runs(client, served), app_runs(folder), served)
        side = NotebookSide(here, client.settings) if here else None
        report = parity(folder, runs, notebook=side, notes=notes)
        self._keep(values, report)
        if not report.ok:
            raise NoParity(report)
        return parity_view(folder.name, report)

    # ------------------------------------------------------------------ load

    def load(self, words: list[str], values: Mapping[str, Any]) -> Any:
        """Send requests at their times, show how it goes, then the numbers and a plot."""
        from nbllm.core.arrivals import LoadPlan
        from nbllm.notebook import load_view
        from nbllm.service.configuration import UNLIMITED_TIER
        from nbllm.service.load import LoadTest, check_local

        if words and "://" in words[0]:
            check_local(words[0])
            raise UsageError("%serve load takes the name of an app that is up, not its address: %serve status lists them.")
        app = _running_app(_folder("load", words).name)
        flow = _one_flow(app, values.get("flow"))
        bodies = [run.arguments for run in self._runs(app, flow)]
        plan = LoadPlan(**{name: values[name] for name in _PLAN if name in values})
        with key_of_tier(app, values.get("tier", UNLIMITED_TIER)) as key:
            test = LoadTest(f"{app.base_url}/flows/{flow}", bodies, plan, key=key)
            result = self._watch(app.name, test)
        report = load_view.promises(result, values)
        self._keep(values, result)
        card = self._load_card
        card.end()
        card.show(load_view.result_view(app.name, result, report))
        shown = load_view.plot(result, p95_s=values.get("p95_s"), save=values.get("save"))
        if report is not None and not report.ok:
            _display(self._shell, shown)
            from nbllm.core.statistics import require

            require(report)
        return shown

    _load_card: LiveCard

    def _watch(self, name: str, test: LoadTest) -> LoadResult:
        from nbllm.notebook import load_view

        card = self._load_card = LiveCard(self._shell, load_view.running_view(name, test.so_far, test.expected, 0))
        in_place = getattr(self._shell, "kernel", None) is not None
        test.start()
        try:
            while not test.wait(_TICK_S):
                if in_place:  # a terminal would keep each line
                    card.show(load_view.running_view(name, test.so_far, test.expected, test.in_flight))
        except KeyboardInterrupt:  # what was measured until then is worth showing
            test.stop()
        return test.result()

    def _runs(self, app: App, flow: str) -> list[RecordedRun]:
        from nbllm.service.recorded import runs_to_replay
        from nbllm.service.replay import app_runs

        own = own_runs(self._client(), {flow})
        # Arguments of another notebook's runs may be what nobody wants to send.
        runs, _ = runs_to_replay(own if own.certain else Own(()), app_runs(app.folder), {flow})
        if not runs:
            raise UsageError(
                f"There is no recorded run of {flow} of this notebook whose arguments could be sent: run it once, to its end."
            )
        return runs

    # ------------------------------------------------------------------ gateway

    def gateway(self, words: list[str], values: Mapping[str, Any]) -> View:
        """Open this notebook's client to other SDKs, behind OpenAI's wire."""
        from nbllm.service.gateway import start_gateway

        if words:
            raise UsageError("Write %serve gateway, with --port N for a port of your choice. (%serve? is the manual.)")
        if self._gateway is None:
            self._gateway = start_gateway(self._client(), port=values.get("port", 0))
        elif "port" in values:
            raise UsageError("The gateway is open already: %serve stop gateway first.")
        gateway = self._gateway
        self._keep(values, gateway)
        name = values.get("out", "gateway")
        example = f'from openai import OpenAI\nsdk = OpenAI(base_url="{gateway.base_url}", api_key={name}.key)'
        keep = () if "out" in values else ("Keep it in a variable for its key: %serve gateway -o gateway",)
        notes = (*keep, "What is asked through it shares this notebook's cache, ledger and budgets.")
        return View(f"The gateway is open at {gateway.base_url}", (Text("For other SDKs of this notebook:", example),), notes)

    # ------------------------------------------------------------------ looking after them

    def names(self) -> list[str]:
        """Return what runs: apps and the gateway."""
        return [*(app.name for app in running()), *(("gateway",) if self._gateway is not None else ())]

    def running(self) -> list[App]:
        """Return the apps that run, or have ended by themselves."""
        return running()

    @property
    def gateway_url(self) -> str:
        """Where the gateway is, "" while there is none."""
        return self._gateway.base_url if self._gateway is not None else ""

    def stop(self, name: str) -> None:
        """Stop one of them."""
        if name == "gateway":
            gateway, self._gateway = self._gateway, None
            gateway.stop()
            return
        views, card = self._cards.pop(name, (None, None))
        if views is not None:
            views.last_look()
        for app in running():
            if app.name == name:
                app.stop()
        if views is not None and card is not None:
            card.end(views.view())


class NoParity(Exception):
    """The service does not do as the notebook does. report: every difference."""

    def __init__(self, report: ParityReport) -> None:
        self.report = report
        super().__init__(str(report))

    def _render_traceback_(self) -> list[str]:  # IPython's protocol
        return str(self).splitlines()


def parity_view(name: str, report: ParityReport) -> View:
    """Return what a comparison found when nothing differs."""
    what = "prompts, parameters, models, answers, sources and budgets are the same"
    done = f"{name}: {what}. Recorded runs were replayed on one cache; no model was asked."
    return View(f"{report.title()}", (), (done, *report.notes))


def _folder(verb: str, words: list[str]) -> Path:
    if len(words) != 1:
        raise UsageError(f"Write %serve {verb} APP, where APP is the folder that %%serve wrote. (%serve? is the manual.)")
    return Path(words[0]).expanduser()


def _running_app(name: str) -> App:
    apps = {app.name: app for app in running()}
    if name not in apps:
        raise UsageError(f"{name} is not up. {did_you_mean(name, apps) if apps else f'%serve up {name} runs it.'}")
    return apps[name]


def _one_flow(app: App, wanted: str | None) -> str:
    from nbllm.service.replay import flows_named_in

    flows = sorted(flows_named_in(app.folder))
    if wanted is not None and wanted not in flows:
        raise UsageError(f"--flow {wanted}: {app.name} does not serve it. {did_you_mean(wanted, flows)}")
    if wanted is None and len(flows) != 1:
        raise UsageError(f"{app.name} serves {', '.join(flows) or 'no flow'}: name one with --flow.")
    return wanted or flows[0]


def _display(shell: Any, shown: Any) -> None:
    if getattr(shell, "kernel", None) is None:
        sys.stdout.write(f"{shown}\n")
        return
    from IPython.display import display

    display(shown)  # type: ignore[no-untyped-call]  # untyped in IPython


def _starting(card: LiveCard, name: str, elapsed_s: float, line: str) -> None:
    if elapsed_s >= 1 and card.in_place:
        card.show(View(f"{name}: starting, {wording.seconds(round(elapsed_s))}", (), (line,) if line else ()))
