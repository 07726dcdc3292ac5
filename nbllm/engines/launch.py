"""Starting an engine: a free port, a random key, a supervised process, and events until it is ready or says why it is not."""

from __future__ import annotations

import os
import secrets
import time
from decimal import Decimal

from nbllm.engines.door import Door
from nbllm.engines.engine import Engine, refuse_twice, registered, shown_as_starting
from nbllm.engines.events import EngineEvent, OnEvent, Stage
from nbllm.engines.plan import PYTHON_PATHS, Plan
from nbllm.engines.process import REASON_LINES, SupervisedProcess
from nbllm.engines.ready import wait_until_ready
from nbllm.engines.reasons import reason_of
from nbllm.engines.supervised import PortTaken, free_port
from nbllm.engines.watch import Rhythm, Watch
from nbllm.errors import EngineFailed, EngineNotPossible
from nbllm.providers.hosts import OTHER_KEYS, PROVIDERS
from nbllm.redaction import register_secret
from nbllm.settings import Endpoint

START_S = 1800.0
"""How long a start may take: weights of a large model come over the network."""
_EVENT_EVERY_S = 0.5
_KEY_BYTES = 32
_HUB_KEYS = set(PROVIDERS["huggingface"].key_envs)


def start(plan: Plan, on_event: OnEvent | None = None, *, timeout_s: float = START_S, rhythm: Rhythm | None = None) -> Engine:
    """Start an engine and return it when it has completed its first token.

    on_event: called on this thread with an EngineEvent, about twice a second. rhythm: how often it is looked after once it runs.
    Raises EngineFailed with the engine's own reason, EngineWedged, EngineNotPossible. However it ends, by an interrupt too, nothing
    is left running but the engine that is returned. Its tokens are priced at $0: the machine's dollars are in the status.
    """
    refuse_twice(plan.name)
    rhythm = rhythm or Rhythm()
    with shown_as_starting(plan.name):
        if plan.port is not None:
            return _launch(plan, _wanted(plan.port), on_event, timeout_s, rhythm)
        try:
            return _launch(plan, free_port(), on_event, timeout_s, rhythm)
        except EngineFailed as error:
            if error.reason != "port_taken":
                raise
        return _launch(plan, free_port(), on_event, timeout_s, rhythm)  # somebody was quicker: once more, elsewhere


def _launch(plan: Plan, port: int, on_event: OnEvent | None, timeout_s: float, rhythm: Rhythm) -> Engine:
    key = secrets.token_urlsafe(_KEY_BYTES) if plan.kind.key_env or plan.kind.key_file else None
    endpoint = _endpoint(plan, port, key)
    process = _process(plan, port, key)
    engine: Engine | None = None
    try:
        telling = _Telling(plan, process, on_event)
        telling.tell("launched")
        door = Door(endpoint.base_url, key)
        asked = wait_until_ready(door, plan.kind, plan.names[0], telling.tick, timeout_s=timeout_s)
        telling.tell("ready")
        watch = Watch(door, asked, plan.kind.metrics, rhythm, lambda: process.alive)
        usd = None if plan.usd_per_hour is None else Decimal(str(plan.usd_per_hour))
        engine = Engine(
            plan.name, plan.kind.title, endpoint, asked, watch, process=process, usd_per_hour=usd, simulated=plan.kind.simulated
        )
        if plan.kind.idle_probe:
            watch.start()
        return registered(engine)
    except BaseException as error:
        if isinstance(error, EngineFailed) and not error.log_tail:
            error.log_tail = "\n".join(process.log_tail())
        if engine is not None:
            engine.begin_stop()
        process.stop()
        raise


def _endpoint(plan: Plan, port: int, key: str | None) -> Endpoint:
    return Endpoint(
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=key,
        identity=plan.identity,
        # Nobody bills the tokens of an engine of one's own: known, not unknown. What the machine costs an hour is in its status.
        input_usd_per_mtok=0,
        output_usd_per_mtok=0,
        # What the others are told is shared by the requests that they work on at once.
        context_tokens=plan.chosen.values.get("max_model_len") if plan.kind.sized else None,
    )


def _process(plan: Plan, port: int, key: str | None) -> SupervisedProcess:
    environment = {name: value for name, value in os.environ.items() if not _stays_here(name, plan)} | plan.environment(port)
    key_file: tuple[str, str] | None = None
    if key is not None:
        register_secret(key)
        if plan.kind.key_env:
            environment[plan.kind.key_env] = key
        elif plan.kind.key_file is not None:
            flag, text = plan.kind.key_file
            key_file = (flag, text.replace("{key}", key))
    return SupervisedProcess(plan.argv(port), environment, masked=[key] if key else [], key_file=key_file)


def _stays_here(name: str, plan: Plan) -> bool:
    """Whether a variable is no business of an engine: a provider's key (the hub's is for getting models), paths of our Python."""
    if name in PYTHON_PATHS and plan.other_python:
        return True
    return name not in _HUB_KEYS and (name in OTHER_KEYS or any(name in provider.key_envs for provider in PROVIDERS.values()))


class _Telling:
    """Tells how a start goes, and ends it when the engine has ended."""

    def __init__(self, plan: Plan, process: SupervisedProcess, on_event: OnEvent | None) -> None:
        self._plan = plan
        self._process = process
        self._on_event = on_event
        self._began_s = time.monotonic()
        self._told: tuple[Stage, float] = ("launched", 0.0)
        self._lines: list[str] = []

    def tick(self, stage: Stage) -> None:
        """Look: EngineFailed when it has ended, an event when it is time for one."""
        if not self._process.alive:
            raise self._failed()
        if stage != self._told[0] or time.monotonic() - self._told[1] >= _EVENT_EVERY_S:
            self.tell(stage)

    def tell(self, stage: Stage) -> None:
        """Send an event."""
        self._told = (stage, time.monotonic())
        if self._on_event is None:
            return
        tail = self._process.log_tail()
        # The tail moves on: what comes behind the last line that was told is new.
        known = tail.index(self._lines[-1]) + 1 if self._lines and self._lines[-1] in tail else 0
        self._lines = tail
        elapsed_s = time.monotonic() - self._began_s
        self._on_event(EngineEvent(self._plan.name, stage, elapsed_s, tail[-1] if tail else "", tuple(tail[known:])))

    def _failed(self) -> EngineFailed:
        process, title = self._process, self._plan.kind.title
        tail = "\n".join(process.log_tail())
        if process.problem:
            return EngineFailed(f"{title} could not be started: {process.problem}.", reason="not_started", log_tail=tail)
        reason = reason_of(process.log_tail(REASON_LINES), process.exit_code)
        said = "\n".join((f"{title} did not start: {reason.said}{reason.how}.", *(f"  {line}" for line in reason.lines)))
        return EngineFailed(said, reason=reason.code, exit_code=process.exit_code, log_tail=tail, hint=reason.hint)


def _wanted(port: int) -> int:
    try:
        return free_port(port)
    except PortTaken as error:
        raise EngineNotPossible(str(error), hint="Leave port out for a free one.") from None
