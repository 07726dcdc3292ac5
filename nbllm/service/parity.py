"""Parity: does a service ask and answer as the notebook did? The comparison of what both did with the same arguments. Pure.

What is compared of each call, in the order of a reader's interest: which models were named, each message, every parameter that can
change an answer (the whole cache key), what pays and limits it, which model answered, where the answer came from, what it cost and
saved, its text and its parsed data; and of each run, its result or error.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from nbllm.redaction import redact

_ABSENT = "(not sent)"
_MOST_LINES, _MOST_ONE_SIDED = 60, 4
_FOLLOWS = frozenset({"source", "cost_usd", "saved_usd", "requests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrace:
    """One call of a run, as plain JSON values. A field that is None in `options` was not set.

    models: as named in the call; None: not known, as of a recording. asked: what can change the answer: messages, parameters,
    schema. options: how it was to be got. answer: text and data. books: rung, source, what it cost and saved in USD as text,
    requests. followed: the route whose recorded choice was followed instead of made anew; not compared.
    """

    models: tuple[str, ...] | None = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    books: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    followed: str = ""

    @property
    def key(self) -> str:
        """What the call asks, as one text."""
        return json.dumps(self.asked, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrace:
    """One run of a flow: its arguments, its result as JSON or its error, and its calls. What a recording does not know is None."""

    flow: str
    arguments: Mapping[str, Any]
    calls: tuple[CallTrace, ...] = ()
    result: Any = None
    error: str = ""
    knows_result: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what `as_json` gave."""
        calls = tuple(CallTrace(**{**c, "models": None if c["models"] is None else tuple(c["models"])}) for c in value["calls"])
        return cls(**{**value, "calls": calls})


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: where (flow and run, call), what differs, and how it is on either side."""

    where: str
    what: str
    before: Any
    after: Any

    def lines(self, names: tuple[str, str], again: str = "") -> list[str]:
        """Return it for a reader: short values on a line each, longer ones as a diff. again: said with where."""
        if None in (self.before, self.after):
            who, said = (names[1], self.after) if self.before is None else (names[0], self.before)
            return [
                f"{self.where}: {self.what}{again}",
                *(f"  {who}: {line}" for line in _shown(said).splitlines()[:_MOST_ONE_SIDED]),
            ]
        left, right = _shown(self.before), _shown(self.after)
        head = f"{self.where}: {self.what}{again}"
        if max(len(left), len(right)) <= 90 and "\n" not in left + right:
            width = max(map(len, names))
            return [head, f"  - {names[0]:<{width}}  {left}", f"  + {names[1]:<{width}}  {right}"]
        diff = list(difflib.unified_diff(left.splitlines(), right.splitlines(), *names, lineterm="", n=1))
        more = [f"  ... and {len(diff) - _MOST_LINES} lines more"] if len(diff) > _MOST_LINES else []
        return [head, *(f"  {line}" for line in diff[:_MOST_LINES]), *more]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """What came of it. runs, calls: compared. skipped: what could not be, and why. names: what the two sides are called."""

    runs: int
    calls: int
    equal: int
    """Runs without a difference."""
    differences: tuple[Difference, ...] = ()
    skipped: tuple[str, ...] = ()
    names: tuple[str, str] = ("notebook", "service")
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there was something to compare and all of it is the same."""
        return self.runs > 0 and not self.differences and not self.skipped

    @property
    def share(self) -> float:
        """Share of the runs that are the same."""
        return self.equal / self.runs if self.runs else 0.0

    def title(self) -> str:
        """Return the verdict in one line."""
        if not self.runs:
            return "Parity: nothing to compare"
        runs = f"{self.equal} of {self.runs} run{'s' if self.runs != 1 else ''}"
        calls = f"{self.calls} call{'s' if self.calls != 1 else ''}"
        same = f"{runs} the same ({calls} compared), at no cost"
        return f"Parity {self.share:.0%}: {same}" if self.ok or self.equal < self.runs else f"No parity: {self._failed()}; {same}"

    def _failed(self) -> str:
        """Return what failed although all runs are the same."""
        settings = [f"{len(self.differences)} setting{'s differ' if len(self.differences) > 1 else ' differs'}"]
        flows = [f"{len(self.skipped)} flow{'s were' if len(self.skipped) > 1 else ' was'} not compared"]
        return ", ".join([*(settings if self.differences else ()), *(flows if self.skipped else ())])

    def __str__(self) -> str:
        """Return the verdict and each difference."""
        lines = [self.title()]
        for difference, count in _grouped(self.differences):
            again = f" (and {count - 1} more times)" if count > 1 else ""
            lines += ["", *difference.lines(self.names, again)]
        lines += ["", *(f"Not compared: {why}" for why in self.skipped)] if self.skipped else []
        return "\n".join([*lines, *self.notes])


def _grouped(differences: Sequence[Difference]) -> list[tuple[Difference, int]]:
    """Return differences that are the same but for where they are once, with how many there are."""
    counts: dict[str, tuple[Difference, int]] = {}
    for one in differences:
        known = json.dumps([one.what, one.before, one.after], sort_keys=True, default=str)
        first, count = counts.get(known, (one, 0))
        counts[known] = (first, count + 1)
    return list(counts.values())


def compare(
    before: Sequence[RunTrace],
    after: Sequence[RunTrace],
    *,
    names: tuple[str, str] = ("notebook", "service"),
    around: Sequence[Sequence[CallTrace]] = (),
    settings: Sequence[Difference] = (),
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ParityReport:
    """Compare runs of the same arguments on two sides, in order. settings: what differs besides. skipped, notes: of the report.

    around: for each run, calls that the first side may have made outside of it, such as a %%llm cell of the notebook: where the
    second side makes one of them within the run, the two are compared.
    """
    found: list[Difference] = list(settings)
    equal = 0
    for number, (left, right) in enumerate(zip(before, after, strict=True), 1):
        outside = around[number - 1] if around else ()
        differences = _of_run(f"{left.flow}, run {number}", left, right, outside)
        equal += not differences
        found += differences
    calls = sum(len(run.calls) for run in after)
    return ParityReport(
        runs=len(after), calls=calls, equal=equal, differences=tuple(found), names=names, skipped=tuple(skipped), notes=tuple(notes)
    )  # fmt: skip


def same(left: RunTrace, right: RunTrace, around: Sequence[CallTrace] = ()) -> bool:
    """Whether a run is the same on both sides. around: as `compare` takes it."""
    return not _of_run("", left, right, around)


def _of_run(where: str, left: RunTrace, right: RunTrace, around: Sequence[CallTrace]) -> list[Difference]:
    found = []
    within, outside = _set_apart(left.calls, right.calls, around)
    for one, other in outside:
        found += _of_call(f"{where}, a call for the whole notebook", one, other)
    pairs, only_left, only_right = _paired(left.calls, within)
    for number, one, other in pairs:
        found += _of_call(f"{where}, call {number}", one, other)
    found += [Difference(where, "a call that only one side makes", _last_message(call), None) for call in only_left]
    found += [Difference(where, "a call that only one side makes", None, _last_message(call)) for call in only_right]
    # A problem's text is not the name of an exception: what is compared is whether there was a result.
    if bool(left.error) != bool(right.error):
        found.append(Difference(where, "how it ended", left.error or "with a result", right.error or "with a result"))
    elif not left.error and left.knows_result and not _same(left.result, right.result):
        found.append(Difference(where, "the result", left.result, right.result))
    return found


def _set_apart(
    left: Sequence[CallTrace], right: Sequence[CallTrace], around: Sequence[CallTrace]
) -> tuple[list[CallTrace], list[tuple[CallTrace, CallTrace]]]:
    """Return the second side's calls that are the run's own, and the others, each with the call around the first side's runs."""
    own = {call.key for call in left}
    known = {_text(call.asked.get("messages")): call for call in around}
    within: list[CallTrace] = []
    outside: list[tuple[CallTrace, CallTrace]] = []
    for call in right:
        twin = None if call.key in own else known.get(_text(call.asked.get("messages")))
        if twin is None:
            within.append(call)
        else:
            outside.append((twin, call))
    return within, outside


def _paired(
    left: Sequence[CallTrace], right: Sequence[CallTrace]
) -> tuple[list[tuple[int, CallTrace, CallTrace]], list[CallTrace], list[CallTrace]]:
    """Pair the calls of a run: equal ones wherever they are, since calls at once come in any order; the rest as they come."""
    rest = list(enumerate(right))
    pairs: list[tuple[int, CallTrace, CallTrace]] = []
    unmatched: list[tuple[int, CallTrace]] = []
    for number, call in enumerate(left, 1):
        twin = next((item for item in rest if item[1].key == call.key), None)
        if twin is None:
            unmatched.append((number, call))
        else:
            rest.remove(twin)
            pairs.append((number, call, twin[1]))
    both = min(len(unmatched), len(rest))
    pairs += [(number, call, other) for (number, call), (_, other) in zip(unmatched[:both], rest[:both], strict=True)]
    return sorted(pairs, key=lambda pair: pair[0]), [call for _, call in unmatched[both:]], [call for _, call in rest[both:]]


def _of_call(where: str, left: CallTrace, right: CallTrace) -> list[Difference]:
    found = []
    if None not in (left.models, right.models) and left.models != right.models:
        found.append(Difference(where, "models", _named(left.models), _named(right.models)))
    found += _messages(where, left.asked.get("messages"), right.asked.get("messages"))
    for part, name in ((left.asked, "asked"), (left.options, "options"), (left.books, "books"), (left.answer, "answer")):
        other: Mapping[str, Any] = getattr(right, name)
        # What is asked differently is no hit: that it then costs something, and saves nothing, follows from that.
        follows = _FOLLOWS if found and name == "books" else frozenset()
        for key in sorted({*part, *other} - {"messages"} - follows):
            known = name == "asked" or (key in part and key in other)  # a recording knows less than a run
            if known and not _same(part.get(key), other.get(key)):
                found.append(Difference(where, key, part.get(key, _ABSENT), other.get(key, _ABSENT)))
    if left.error != right.error:
        found.append(Difference(where, "error", left.error or "none", right.error or "none"))
    return found


def _named(models: Sequence[str] | None) -> str:
    return ", ".join(models or ()) or "the default"


def _messages(where: str, left: Any, right: Any) -> list[Difference]:
    if _same(left, right):
        return []
    if not isinstance(left, Sequence) or not isinstance(right, Sequence) or len(left) != len(right):
        return [Difference(where, "messages", left, right)]
    found = []
    for number, (one, other) in enumerate(zip(left, right, strict=True), 1):
        if not _same(one, other):
            prompt = "prompt" if len(left) == 1 else f"message {number} ({one.get('role', '?')})"
            same_role = one.get("role") == other.get("role") and {*one, *other} == {"role", "content"}
            found.append(
                Difference(where, prompt, one["content"], other["content"]) if same_role else Difference(where, prompt, one, other)
            )
    return found


def _last_message(call: CallTrace) -> Any:
    if "texts" in call.asked:
        return "\n".join(f"embed: {text}" for text in call.asked["texts"])
    messages: Any = call.asked.get("messages") or ({},)
    return messages[-1].get("content", messages[-1])


def _same(left: Any, right: Any) -> bool:
    """Whether two values are the same as recordings keep them: as JSON, redacted."""
    return left == right or _text(left) == _text(right)


def _text(value: Any) -> str:
    return redact(json.dumps(value, sort_keys=True, default=str))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return redact(value)
    return redact(json.dumps(value, indent=1, ensure_ascii=False, default=str)) if value is not None else "nothing"
