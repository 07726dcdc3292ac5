"""What %serve takes and how it is explained. The engines' own options come from their table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbllm.engines.catalog import ENGINES
from nbllm.engines.options import OPTIONS, EngineOption
from nbllm.settings import reading
from nbllm.settings.flags import Flag, Manual
from nbllm.settings.option import BadValue

VERBS = ("start", "status", "stop", "attach")


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text[:6]) < 65_536:
        raise BadValue("a port is 1 to 65535")
    return int(text)


OWN = (
    Flag(names=("--python",), dest="python", read=str, metavar="FILE", completes="files",
         help="The Python of the engine's own environment: /opt/vllm/bin/python."),
    Flag(names=("--name",), dest="name", read=str, metavar="NAME", help="Name of the endpoint; by default the engine's."),
    Flag(names=("--served-name",), dest="served_name", read=str, metavar="NAME", help="What the server calls the model."),
    Flag(names=("--port",), dest="port", read=_port, metavar="N", help="Port on 127.0.0.1; by default a free one."),
    Flag(names=("--timeout",), dest="timeout_s", read=reading.duration_s, metavar="TIME",
         help="How long the start may take: 10m. Default 30m."),
    Flag(names=("--force",), dest="force", help="Start what does not fit by the arithmetic all the same."),
    Flag(names=("--usd-per-hour",), dest="usd_per_hour", read=reading.usd, metavar="USD",
         help="What the machine costs an hour; the status then shows dollars per million tokens."),
    Flag(names=("-m", "--model"), dest="model", read=str, metavar="MODEL", help="attach: which of the server's models."),
    Flag(names=("--key-env",), dest="api_key_env", read=str, metavar="NAME",
         help="attach: the environment variable that holds the server's key."),
)  # fmt: skip
"""Options of the magic itself, by what they become."""


def _engine_flags(row: EngineOption) -> list[Flag]:
    """Return the flag of an engine's option; a switch that is on by default has one to switch it off, too."""
    name, option = "--" + row.name.replace("_", "-"), row.option
    engines = "" if set(row.spelled) == {"vllm", "sglang"} else f" ({', '.join(sorted(row.spelled))})"
    if option.kind == "flag":
        on = Flag(names=(name,), dest=row.name, help=option.help + engines)
        has_off = any(spelled.partition("|")[2] for spelled in row.spelled.values())
        off = Flag(names=(name.replace("--enable", "--no-enable"),), dest=f"no_{row.name}", help=f"The opposite of {name}.")
        return [on, off] if has_off else [on]
    return [
        Flag(
            names=(name,),
            dest=row.name,
            read=_reader(row),
            metavar={"text": "TEXT", "choice": "TYPE"}.get(option.kind, option.metavar),
            help=option.help + engines,
            completes=option.choices,
        )
    ]


def _reader(row: EngineOption) -> Callable[[str], Any]:
    return row.option.parse


SERVE = Manual(
    name="%serve",
    summary="Start a model server here and use it as an endpoint; look after it; stop it.",
    usage=(
        "%serve start ENGINE MODEL [options]",
        "%serve status [NAME]",
        "%serve stop [NAME]",
        "%serve attach URL [--name NAME] [-m MODEL] [--key-env NAME]",
    ),
    examples="""
        %serve start vllm Qwen/Qwen2.5-0.5B-Instruct --max-model-len 4096
        %serve start vllm my-model --python /opt/vllm/bin/python
        %serve start llama models/qwen2.5-0.5b-q4.gguf
        %serve start ollama qwen2.5:0.5b           # ollama pull it first
        %serve start sim large                     # simulated, works everywhere
        %serve attach http://127.0.0.1:8000/v1 --name lab
        %serve status
        %serve stop

        Then ask it by its endpoint's name: %%llm -m vllm/qwen
    """,
    flags=(*OWN, *(flag for row in OPTIONS.values() for flag in _engine_flags(row))),
    more=f"""
        ENGINE is {", ".join(list(ENGINES)[:-1])} or {list(ENGINES)[-1]} (sim). An engine
        is a program of its own, with an environment of its own; %serve finds it on
        PATH or by --python, and says how to install it when it is not there.
        Before the start it is worked out whether the model fits; what cannot fit is
        refused, with the longest --max-model-len that does. It listens on 127.0.0.1
        only, with a random key, and is ready after it has completed a token.
        Ctrl-C while it starts ends it; a later Ctrl-C does not reach it. It ends with
        %serve stop and with this kernel, however that ends.
        Options without an engine in brackets are those of vllm and sglang.
    """,
    words=(*VERBS, *ENGINES),
)
