"""Local model servers: whether they fit, started, waited for, watched and stopped.

    plan = plan_launch("vllm", "Qwen/Qwen2.5-0.5B-Instruct", {"max_model_len": 4096})
    engine = start(plan, on_event=print)
    client.configure(endpoints={engine.name: engine.endpoint})
    engine.status(), engine.stop()

An engine is a program of its own in an environment of its own, never a dependency. It is started below a supervisor process and
ends with the process that asked for it, however that one ends. Importing this loads nothing; names come with their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbllm.engines.attaching import attach
    from nbllm.engines.engine import Engine, running
    from nbllm.engines.events import EngineEvent
    from nbllm.engines.launch import start
    from nbllm.engines.plan import Plan, plan_launch
    from nbllm.engines.status import EngineStatus

__all__ = ["Engine", "EngineEvent", "EngineStatus", "Plan", "attach", "plan_launch", "running", "start"]

_HOMES = {
    "Engine": "engine",
    "EngineEvent": "events",
    "EngineStatus": "status",
    "Plan": "plan",
    "attach": "attaching",
    "plan_launch": "plan",
    "running": "engine",
    "start": "launch",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
