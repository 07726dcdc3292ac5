"""Local model servers: whether they fit, started, waited for, watched and stopped.

    plan = plan_launch("vllm", "Qwen/Qwen2.5-0.5B-Instruct", {"max_model_len": 4096})
    engine = start(plan, on_event=print)
    client.configure(endpoints={engine.name: engine.endpoint})
    engine.status(), engine.stop()

An engine is a program of its own in an environment of its own, never a dependency. It is started below a supervisor process and
ends with the process that asked for it, however that one ends.
"""

from __future__ import annotations

from nbllm.engines.attach import attach
from nbllm.engines.engine import Engine, running
from nbllm.engines.events import EngineEvent
from nbllm.engines.launch import start
from nbllm.engines.plan import Plan, plan_launch
from nbllm.engines.status import EngineStatus

__all__ = ["Engine", "EngineEvent", "EngineStatus", "Plan", "attach", "plan_launch", "running", "start"]
