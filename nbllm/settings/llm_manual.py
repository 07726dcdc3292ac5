"""%%llm: what its line takes, how it is explained, and the options of the call that come of it.

Declared below the notebook, because the exporter reads the same line when it turns the cell into a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.settings import reading
from nbllm.settings.flags import BadLine, Flag, Manual
from nbllm.settings.suggest import nearest
from nbllm.settings.tables import CALL_OPTIONS

_SURE_CHARS = 6
"""Shorter names are near to each other without being meant: mode is a field of some providers, and no misspelt model."""
_NOT_OPTIONS = {"out", "raw", "quiet", "set", "schema", "check"}


def _call(names: tuple[str, ...], option: str, metavar: str, help: str = "", completes: Any = ()) -> Flag:  # noqa: A002 - a flag's help
    known = CALL_OPTIONS[option]
    return Flag(
        names=names,
        dest=option,
        help=help or known.help,
        read=reading.option(option),
        metavar=metavar,
        completes=completes or known.choices,
    )


LLM = Manual(
    name="%%llm",
    summary="Ask a language model: the answer streams below the cell and stays in a variable.",
    usage=("%%llm [options]         the prompt is the rest of the cell",
           "%llm [options] PROMPT   one line; shows the answer and returns the Reply"),
    examples="""
        %%llm -m sim/large -o answer
        Summarise {{ doc }} in three bullets.

        {{ doc }} is the variable doc of this notebook. Afterwards
        answer.text, answer.cost_usd, answer.source tell what came of it.

        %%llm -m sim/small --schema Person -o person     # person.data is a Person
        %%llm -s "You are terse." -t 0 --max-tokens 200  # system prompt, limits
        %%llm --feature triage --budget 0.01             # for the books; stop at 1 cent
        %%llm --cache refresh                            # ask anew, keep the new answer
        %%llm --sample 2                                 # another answer, same prompt
        x = %llm -m sim/small --quiet What is an ECDF?
    """,
    flags=(
        _call(("-m", "--model"), "model", "MODEL", "Model id (endpoint/model or provider/model), or several, with commas; "
              "without it the default model answers.", "models"),
        Flag(names=("-o", "--out"), dest="out", read=reading.identifier, metavar="NAME", completes="names",
             help="Variable that gets the Reply. Without it: _."),
        _call(("-s", "--system"), "system", "TEXT", "System prompt; a template like the prompt."),
        Flag(names=("--schema",), dest="schema", read=reading.dotted_name, metavar="NAME", completes="schemas",
             help="Pydantic model, dataclass, TypedDict or JSON Schema of this notebook that the answer must fit; fills .data."),
        Flag(names=("--check",), dest="check", read=reading.dotted_name, metavar="NAME", completes="functions",
             help="Function of this notebook that gets .data (or the text) and raises or returns False when it will not do."),
        _call(("-t", "--temperature"), "temperature", "N", "Sampling temperature."),
        _call(("--max-tokens",), "max_tokens", "N"),
        _call(("--feature",), "feature", "NAME"),
        _call(("--user",), "user", "NAME"),
        _call(("--cache",), "cache", "MODE"),
        _call(("--ttl",), "ttl_s", "TIME", "How long the stored answer is fresh: 30s, 10m, 7d."),
        _call(("--deadline",), "deadline_s", "TIME", "Longest time for everything, retries and "
              "fallbacks included: 30s, 2m. Default 5m."),
        _call(("--sample",), "sample", "N"),
        Flag(names=("--set",), dest="set", read=reading.pair, metavar="KEY=VALUE", repeat=True, completes="sets",
             help="Any further option of ask (top_p=0.9, seed=7, retries=0), or a field for the provider. May be repeated."),
        Flag(names=("--raw",), dest="raw", help="Send the prompt as it stands: no templating."),
        Flag(names=("--quiet",), dest="quiet", help="Show nothing but errors."),
        _call(("--budget",), "budget_usd", "USD", "Most that this call may cost, in USD."),
    ),
    more="""
        Ctrl-C (the stop button) stops the request at once; what came is kept in the
        variable, marked as interrupted. A call that fails makes the cell fail, so
        that Run All stops. In {{ }} and {% %} the prompt is a Jinja2 template over
        the notebook's variables; { and } alone are plain text.
        %%nbllm is the same magic, for notebooks where %%llm belongs to somebody else.
    """,
    rest="none",
)  # fmt: skip

LLM_LINE = Manual(
    name="%llm", summary=LLM.summary, usage=LLM.usage, examples=LLM.examples, flags=LLM.flags, more=LLM.more, rest="text"
)


def asked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call's options from the line's values: --set sorted into options and fields for the provider (`extra`).

    What names something of the notebook (schema, check) is left to the caller. Raises BadLine.
    """
    options = {name: value for name, value in given.items() if name not in _NOT_OPTIONS}
    extra: dict[str, Any] = {}
    named = given.keys() & {"schema", "check"}
    for key, value in given.get("set", ()):
        if key in options or key in extra or key in named:
            raise BadLine(f"--set {key}=...: {key} is given twice.")
        if key in CALL_OPTIONS and key != "extra":
            options[key] = value
            continue
        near = nearest(key, CALL_OPTIONS, cutoff=0.85) if len(key) >= _SURE_CHARS else None
        if near is not None:
            raise BadLine(f"--set {key}=...: there is no option {key}. Did you mean {near}?")
        extra[key] = value
    return {**options, "extra": extra} if extra else options
