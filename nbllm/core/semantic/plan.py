"""SemanticPlan: a calibrated threshold, and what it was calibrated for. A JSON file beside nbllm.toml, readable in a diff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from msgspec import Struct
from msgspec.structs import asdict

from nbllm.errors import ConfigurationError

KIND = "nbllm semantic plan"
VERSION = 1
GROWTH = 4
"""An index that has grown by this factor has other nearest neighbours than the labels were drawn from."""
FEW_ROWS = 100
"""An index with fewer may grow to four times as many as these without making a plan stale."""
_MOST_BYTES = 5_000_000

PlanOrigin = Literal["audit", "imported", "judge"]


class SemanticPlan(Struct, frozen=True, kw_only=True):
    """From which similarity on an answer may stand in, and for which traffic that holds.

    threshold: least cosine similarity. error_upper: upper bound, at `confidence`, of the share of wrong answers among hits.
    origin: where its labels came from; only "audit" speaks for the traffic itself. scopes: hashes of model, system prompt and
    parameters that the labels came from, () for imported pairs. index_rows: stored questions at that time. calibration: the whole
    result of the calibration, for people. made_on: date, ISO.
    """

    plan_id: str
    made_on: str
    threshold: float
    error_upper: float
    max_error: float
    confidence: float
    origin: PlanOrigin
    embedder: str
    guards: str
    scopes: tuple[str, ...]
    index_rows: int
    calibration: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the text of its file; the same plan is always the same text."""
        values = {"kind": KIND, "version": VERSION, **asdict(self)}
        return "{\n" + ",\n".join(_line(name, value, "  ") for name, value in values.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "the plan") -> SemanticPlan:
        """Return the plan of a file's text. Raises ConfigurationError: cut, of another kind, with values out of range."""
        try:
            values = json.loads(text) if len(text) <= _MOST_BYTES else None
        except (ValueError, RecursionError) as exc:
            raise _unusable(where, f"is no JSON ({exc})") from None
        if not isinstance(values, dict) or values.pop("kind", None) != KIND:
            raise _unusable(where, "is no plan of a semantic cache")
        if (version := values.pop("version", None)) != VERSION:
            raise _unusable(where, f"is of version {version!r}; this nbllm reads {VERSION}")
        missing = [name for name in cls.__struct_fields__ if name not in values]
        if missing:
            raise _unusable(where, f"lacks {', '.join(missing)}")
        problem = _problem(values)
        if problem:
            raise _unusable(where, problem)
        return cls(**{name: values[name] for name in cls.__struct_fields__} | {"scopes": tuple(values["scopes"])})

    def covers(self, scope: str) -> bool:
        """Whether the labels came from traffic of this scope; a plan of imported pairs names none."""
        return scope in self.scopes or (self.origin == "imported" and not self.scopes)

    def stale(self, *, embedder: str, guards: str, index_rows: int) -> str | None:
        """Return what has changed since it was made, in words; None when it still holds."""
        if embedder != self.embedder:
            return f"it was made with the embedder {self.embedder}, and {embedder} is in use"
        if guards != self.guards:
            return "it was made with other guards"
        if self.origin != "imported" and index_rows > GROWTH * max(self.index_rows, FEW_ROWS):
            return f"the index has grown from {self.index_rows:,} to {index_rows:,} questions"
        return None


def _line(name: str, value: Any, indent: str) -> str:
    """Return one value on one line, an object's values and a table's rows on one line each."""
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        lines = [_line(key, one, deeper) for key, one in value.items()]
    elif isinstance(value, list) and value and all(isinstance(row, list | dict) for row in value):
        lines = [deeper + json.dumps(row, ensure_ascii=False) for row in value]
    else:
        return f"{indent}{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
    ends = "{}" if isinstance(value, Mapping) else "[]"
    return f"{indent}{json.dumps(name)}: {ends[0]}\n" + ",\n".join(lines) + f"\n{indent}{ends[1]}"


def _problem(values: Mapping[str, Any]) -> str:
    for name in ("threshold", "error_upper", "max_error", "confidence"):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1.0 <= value <= 1.0 + 1e-6:
            return f"has {name} {value!r}, which is no number between -1 and 1"
    if not 0 < values["max_error"] <= 1 or not values["error_upper"] <= values["max_error"] + 1e-12:
        return f"has a bound of {values['error_upper']!r} above its own max_error {values['max_error']!r}"
    if not isinstance(values["scopes"], list) or not all(isinstance(s, str) for s in values["scopes"]):
        return "has scopes that are no list of texts"
    if not isinstance(values["index_rows"], int) or values["origin"] not in get_args(PlanOrigin):
        return "has an origin or a number of rows that is none"
    texts = all(isinstance(values[name], str) for name in ("plan_id", "made_on", "embedder", "guards"))
    return "" if texts and isinstance(values["calibration"], dict) else "has a field of a wrong type"


def _unusable(where: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} {problem}. Nothing is served from similarity.",
        hint="Calibrate again and write the plan anew (docs/semantic-cache.md).",
    )
