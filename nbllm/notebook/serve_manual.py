"""What %serve takes and how it is explained. The engines' own options come from their table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbllm.engines.catalog import ENGINES
from nbllm.engines.options import OPTIONS, EngineOption
from nbllm.settings import reading
from nbllm.settings.flags import Flag, Manual
from nbllm.settings.option import BadValue

VERBS = ("start", "status", "stop", "attach", "export", "up", "parity", "load", "gateway")


def _people(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text[:6]) <= 10_000:
        raise BadValue("people are 1 to 10000")
    return int(text)


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
"""Options for engines, by what they become."""

_OUT = Flag(names=("-o", "--out"), dest="out", read=str, metavar="NAME",
            help="up, parity, load, gateway: variable that keeps what is shown. export: the folder.")  # fmt: skip
_INCLUDE = Flag(names=("--include",), dest="include", read=str, metavar="PATH", completes="files", repeat=True,
                help="A file that the flow reads: it travels in data/. May be given several times.")  # fmt: skip
_EXAMPLES = Flag(names=("--examples",), dest="examples", read=str, metavar="WHICH", completes=("all", "1", "5"), repeat=True,
                 help="Recorded runs that travel, redacted: all, a number (the newest), or ids.")  # fmt: skip
APPS = (
    _OUT,
    _INCLUDE,
    _EXAMPLES,
    Flag(names=("--home",), dest="home", read=str, metavar="DIR", completes="files",
         help="up: where its cache, ledger, budgets and jobs are; by default in .state of its own folder."),
    Flag(names=("--share",), dest="share",
         help="up: in this notebook's home: it answers from its cache, and spends its budget of the day."),
    Flag(names=("--users",), dest="users", read=_people, metavar="N", help="load: people who ask (50)."),
    Flag(names=("--seconds",), dest="seconds", read=reading.duration_s, metavar="TIME", help="load: how long they do (20s)."),
    Flag(names=("--every",), dest="every_s", read=reading.duration_s, metavar="TIME",
         help="load: from one question of a person to the next, on average (1s)."),
    Flag(names=("--ramp",), dest="ramp_s", read=reading.duration_s, metavar="TIME", help="load: time over which they come (0s)."),
    Flag(names=("--even",), dest="even", help="load: questions at equal distances, not by chance."),
    Flag(names=("--limit",), dest="limit_s", read=reading.duration_s, metavar="TIME",
         help="load: longest wait for an answer (30s)."),
    Flag(names=("--tier",), dest="tier", read=str, metavar="NAME", help="load: ask as a key of this tier (unlimited)."),
    Flag(names=("--p95",), dest="p95_s", read=reading.duration_s, metavar="TIME", help="load: promise to check."),
    Flag(names=("--p50",), dest="p50_s", read=reading.duration_s, metavar="TIME", help="load: promise to check."),
    Flag(names=("--error-rate",), dest="error_rate", read=reading.share, metavar="SHARE", help="load: promise to check."),
    Flag(names=("--flow",), dest="flow", read=str, metavar="NAME", completes="functions",
         help="load: which flow, of an app with several. Without a word: as %%serve takes it."),
    Flag(names=("--save",), dest="save", read=str, metavar="FILE", completes="files", help="load: write the plot to a file too."),
)  # fmt: skip
"""Options for exported apps."""


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
    summary="Model servers and exported apps on this machine: start, compare, load, stop.",
    usage=(
        "%serve start ENGINE MODEL [options]        a model server as an endpoint",
        "%serve attach URL [--name NAME] [-m MODEL] [--key-env NAME]",
        "%serve export FLOW --out FOLDER            a flow as an app, as %%serve does",
        "%serve up APP [--share] [-o NAME]          an exported app as a service",
        "%serve parity APP                          notebook and service: the same?",
        "%serve load APP [--users N] [--seconds TIME] [options]",
        "%serve gateway [--port N] [-o NAME]        this session for other SDKs",
        "%serve status [NAME]",
        "%serve stop [NAME]",
    ),
    examples="""
        %serve start vllm Qwen/Qwen2.5-0.5B-Instruct --max-model-len 4096
        %serve start vllm my-model --python /opt/vllm/bin/python
        %serve start ollama qwen2.5:0.5b           # ollama pull it first
        %serve start sim large                     # simulated, works everywhere
        %serve attach http://127.0.0.1:8000/v1 --name lab
        %serve up support_app --share -o app       # app.base_url, app.key
        %serve parity support_app
        %serve load support_app --users 50 --seconds 20 --p95 500ms
        %serve stop

        Then ask a model server by its endpoint's name: %%llm -m vllm/qwen
        %%serve? is the manual of the cell that exports a flow.
    """,
    flags=(*APPS, *OWN, *(flag for row in OPTIONS.values() for flag in _engine_flags(row))),
    more=f"""
        ENGINE is {", ".join(list(ENGINES)[:-1])} or {list(ENGINES)[-1]} (sim). An engine
        is a program of its own, with an environment of its own; %serve finds it on
        PATH or by --python, and says how to install it when it is not there.
        Before the start it is worked out whether the model fits; what cannot fit is
        refused, with the longest --max-model-len that does. It listens on 127.0.0.1
        only, with a random key, and is ready after it has completed a token.
        Ctrl-C while it starts ends it; a later Ctrl-C does not reach it.
        Options without an engine in brackets are those of vllm and sglang.
        attach takes a server that runs already. It is never stopped, and looked at
        when status is asked: one token, unless it is seen to work.

        up runs an exported app on 127.0.0.1 with a random key, shows both, and what
        it was asked and cost so far. It has a home of its own; with --share it answers
        from this notebook's cache. parity replays recorded runs of its flows here
        and in the app on one cache, at no cost, and shows what differs. load sends
        requests when they are due, whatever became of those before, to apps on this
        machine only. gateway is this notebook's own client behind OpenAI's /v1: other
        SDKs share its cache, ledger and budgets.
        Everything ends with %serve stop and with this kernel, however that ends.
    """,
    words=(*VERBS, *ENGINES),
)
EXPORT = Manual(
    name="%%serve",
    summary="Run the cell, then export a flow as the project of a service.",
    usage=("%%serve --flow NAME --out FOLDER [options]",),
    examples="""
        %%serve --flow triage --out support_app
        @flow
        def triage(ticket: str, lang: str = "en") -> Triage:
            return ask(f"Classify, in {lang}:\\n{ticket}", schema=Triage).data

        %%serve --flow triage --out support_app --examples all --include labels.csv
        # a flow that is defined above; the same as %serve export triage --out ...
    """,
    flags=(
        Flag(names=("--flow",), dest="flow", read=reading.identifier, metavar="NAME", completes="functions",
             help="The flow, defined in this cell or above. Without it: the one flow that the cell defines."),
        Flag(names=("--out",), dest="out", read=str, metavar="FOLDER", completes="files", help="Where the project goes."),
        _INCLUDE,
        _EXAMPLES,
        Flag(names=("--force",), dest="force", help="Overwrite files of the project that were changed by hand."),
    ),
    more="""
        Of this session's cells, in the order in which they ran, those go along that the
        flow needs: imports, functions, classes, constants, %%llm cells. What cannot be
        exported is told at once, with its cell and line, and then nothing is written.
        The result is proved in a clean process without network before it is written.
        Next: %serve up FOLDER, %serve parity FOLDER.
    """,
    rest="none",
)  # fmt: skip
