"""SemanticSettings: whether an answer to a similar question may stand in, and what has to hold before it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from nbllm.settings.option import Option

SemanticMode = Literal["off", "shadow", "on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticSettings:
    """The table [semantic_cache]; what each value is for is said in SEMANTIC."""

    mode: SemanticMode = "off"
    plan: str | None = None
    embedder: str = "lexical"
    guards: tuple[str, ...] = ("all",)
    guard_words: str | None = None
    judge: str | None = None
    judge_below: float | None = None
    max_age_s: float = 30 * 86_400.0
    audit_share: float = 0.02
    embed_timeout_s: float = 0.5
    accept_foreign: bool = False
    writes_per_minute: int | None = 60


FILES = ("plan", "guard_words")
"""Fields that name a file; in a settings file they are relative to it."""
FIELDS = tuple(field.name for field in fields(SemanticSettings))

_HELP = {
    "mode": "off; shadow: record what would have been served, serve nothing; on: serve what the plan allows.",
    "plan": "File of the calibrated plan (JSON), relative to the settings file; on needs one.",
    "embedder": "Model id that embeds questions, local:FOLDER, or lexical (built in: compares words, not meanings).",
    "guards": "Guards that a match must pass: all, or some of them by name.",
    "guard_words": "File (TOML) with words of your own for the guards: opposites, names, common words.",
    "judge": "Model id that is asked whether two questions mean the same, for matches below judge_below.",
    "judge_below": "Similarity below which the judge is asked, up from the plan's threshold; None: for every match.",
    "max_age_s": "Absolute age, in seconds, beyond which an answer is never given to another question; a hit does not refresh it.",
    "audit_share": "Share of hits that are sent to the model all the same, and offered for labelling.",
    "embed_timeout_s": "Longest wait for the embedding of a question, in seconds; then it is a miss.",
    "accept_foreign": "Let a plan serve that was calibrated on imported pairs: it holds for pairs like those.",
    "writes_per_minute": "Questions that one user of a service may add in a minute; None: not limited.",
}
_RANGE: Mapping[str, Mapping[str, Any]] = {
    "mode": {"kind": "choice", "choices": ("off", "shadow", "on")},
    "embedder": {"is_name": True},
    "guards": {"kind": "texts", "is_name": True},
    "judge": {"is_name": True},
    "judge_below": {"kind": "number", "at_least": -1, "at_most": 1},
    "max_age_s": {"kind": "number", "above": 0, "at_most": 3650 * 86_400},
    "audit_share": {"kind": "share", "at_least": 0, "at_most": 1},
    "embed_timeout_s": {"kind": "number", "above": 0, "at_most": 3600},
    "accept_foreign": {"kind": "flag"},
    "writes_per_minute": {"kind": "integer", "at_least": 0, "at_most": 10**9},
}
_NONE_WILL_DO = {"plan", "guard_words", "judge", "judge_below", "writes_per_minute"}


def _option(name: str) -> Option:
    more: dict[str, Any] = {"kind": "text", **_RANGE.get(name, {})}
    default = getattr(SemanticSettings(), name)
    return Option(name=f"semantic_cache.{name}", default=default, help=_HELP[name], optional=name in _NONE_WILL_DO, **more)


SEMANTIC = tuple(_option(name) for name in FIELDS)
"""One option for each field, `semantic_cache.NAME`."""
