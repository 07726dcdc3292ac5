"""Tab completion on the magics' lines, from the same tables as parser and manual."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nbllm.notebook.manuals import MANUALS
from nbllm.notebook.names import users_names
from nbllm.notebook.serve_manual import EXPORT
from nbllm.settings.flags import Flag, Manual
from nbllm.settings.llm_manual import LLM_LINE
from nbllm.settings.tables import CALL_OPTIONS, SETTABLE

_LINE = re.compile(r"^\s*(?:[\w.,\s\[\]\"']*=\s*)?(%%?)(\w+)\s+(.*)$", re.DOTALL)
_MOST = 500
_OF_APPS = ("up", "parity", "load")
"""Words of %serve that a folder follows."""


def offered(line: str, names: Mapping[str, Callable[[], Iterable[str]]]) -> tuple[str, list[str]] | None:
    """Return (fragment, completions) for a line up to the cursor; None when it is no magic of ours or holds the prompt.

    names: kind of thing (models, names, schemas ...) -> a function that returns what there is of it.
    """
    match = _LINE.match(line)
    manual = MANUALS.get(match.group(2)) if match else None
    if match is None or manual is None:
        return None
    if match.group(2) in {"llm", "nbllm"} and match.group(1) == "%":
        manual = LLM_LINE
    if match.group(2) == "serve" and match.group(1) == "%%":
        manual = EXPORT
    words = re.split(r"\s+", match.group(3))
    fragment, before = words[-1], words[:-1]
    if manual.rest == "text" and _in_prompt(manual, before):
        return None
    flag = manual.flag(before[-1]) if before else None
    if flag is not None and flag.read is not None:
        return fragment, _values(flag, fragment, names)
    if fragment.startswith("-"):
        name, equals, value = fragment.partition("=")
        flag = manual.flag(name)
        if equals and flag is not None and flag.read is not None:
            return value, _values(flag, value, names)
        used = {n for w in before if (f := manual.flag(w)) and not f.repeat for n in f.names}
        return fragment, [n for n in manual.names if n.startswith(fragment) and n not in used]
    if manual.name == "%serve" and before[:1] and before[0] in _OF_APPS:
        return fragment, _files(fragment)
    found, texts = _words(manual, fragment, names)
    # What is set takes a value, what is reset is only named.
    return found, [text.rstrip("=") for text in texts] if {"--reset", "reset"} & set(before) else texts


def _words(manual: Manual, fragment: str, names: Mapping[str, Any]) -> tuple[str, list[str]]:
    if manual.rest != "words":
        return fragment, [] if fragment else manual.names
    known = manual.words if isinstance(manual.words, tuple) else tuple(names[manual.words]())
    return fragment, [w for w in known if w.startswith(fragment)][:_MOST]


def _in_prompt(manual: Manual, before: list[str]) -> bool:
    """Whether a word before the cursor is neither a flag nor a flag's value."""
    flags = [manual.flag(word.partition("=")[0]) for word in before]
    values = [False, *(f is not None and f.read is not None and "=" not in w for f, w in zip(flags, before, strict=True))]
    return any(flag is None and not value for flag, value in zip(flags, values, strict=False))


def _values(flag: Flag, fragment: str, names: Mapping[str, Any]) -> list[str]:
    if flag.completes == "files":
        return _files(fragment)
    known = flag.completes if isinstance(flag.completes, tuple) else tuple(names.get(flag.completes, tuple)())
    head, comma, last = fragment.rpartition(",") if flag.completes == "models" else ("", "", fragment)
    return [head + comma + k for k in known if k.startswith(last)][:_MOST]


def _files(fragment: str) -> list[str]:
    folder = Path(fragment).parent if fragment else Path()
    try:
        found = sorted(p for p in folder.iterdir() if str(p).startswith(fragment) and not p.name.startswith("."))
    except OSError:
        return []
    return [f"{p}/" if p.is_dir() else str(p) for p in found][:_MOST]


def _providers() -> list[str]:
    from nbllm.providers.hosts import PROVIDERS

    return sorted(PROVIDERS)


class Completion:
    """The matcher in a shell's completer, from when it is made until `remove`."""

    def __init__(self, shell: Any, client: Callable[[], Any]) -> None:
        self._shell = shell
        self._client = client
        self._names: Mapping[str, Callable[[], Iterable[str]]] = {
            "models": self._models,
            "models and providers": lambda: [*_providers(), *self._models()],
            "settings": lambda: [f"{name}=" for name in SETTABLE],
            "names": lambda: users_names(shell.user_ns),
            "schemas": lambda: [n for n in users_names(shell.user_ns) if isinstance(shell.user_ns[n], type | Mapping)],
            "functions": lambda: [n for n in users_names(shell.user_ns) if callable(shell.user_ns[n])],
            "sets": lambda: [f"{name}=" for name in CALL_OPTIONS],
        }
        self.matcher = self._matcher()
        shell.Completer.custom_matchers.append(self.matcher)

    def remove(self) -> None:
        """Take the matcher out again."""
        if self.matcher in self._shell.Completer.custom_matchers:
            self._shell.Completer.custom_matchers.remove(self.matcher)

    def _models(self) -> list[str]:
        try:
            client = self._client()
            return [row.id for row in client.models()] + [f"{name}/" for name in client.settings.endpoints]
        except Exception:  # Tab must never raise: without a client there is nothing to offer
            return []

    def _matcher(self) -> Any:
        @context_matcher(identifier="nbllm", priority=100)  # type: ignore[untyped-decorator]
        def match(context: CompletionContext) -> SimpleMatcherResult:
            line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
            found = offered(line, self._names)
            if found is None or (line.lstrip().startswith("%%") and context.cursor_line):
                return {"completions": []}
            fragment, texts = found
            return {
                "completions": [SimpleCompletion(text=text, type="nbllm") for text in texts],
                "matched_fragment": fragment,
                "suppress": bool(texts),
                "ordered": True,
            }

        return match
