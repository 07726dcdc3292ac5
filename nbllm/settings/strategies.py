"""What a route can be besides a list of models: one frozen dataclass for each strategy. docs/routes.md has an example of each.

`use`, `otherwise`, `models`, labels and weights name models, or a route alone. A name that a route chooses is tried first; what
comes after it is said with each strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Names = tuple[str, ...]
By = Literal["user", "request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a route by task: all that is given has to hold. Texts are those of the last message of the user.

    feature, user, tag: names, * stands for anything. longer_than, shorter_than: characters of all messages together. language: a
    code such as "de" (core/language.py). contains: one of these texts is in it, case aside. matches: a regular expression.
    """

    use: Names
    feature: str | None = None
    user: str | None = None
    tag: str | None = None
    longer_than: int | None = None
    shorter_than: int | None = None
    language: str | None = None
    contains: Names = ()
    matches: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTask:
    """The first rule that holds chooses; else, and after what it chose has failed, `otherwise`."""

    strategy: ClassVar[str] = "task"
    rules: tuple[Rule, ...]
    otherwise: Names

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        for rule in self.rules:
            yield rule.use
        yield self.otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A small model names one of the labels; kept in the answer cache. Without a label: `otherwise`.

    instructions: what tells the labels apart. at_most_s: longest wait for the label, in seconds. most_chars: of the text that it
    is shown.
    """

    strategy: ClassVar[str] = "classifier"
    model: str
    labels: Mapping[str, Names] = field(hash=False)
    otherwise: Names
    instructions: str = ""
    at_most_s: float = 5.0
    max_tokens: int = 256
    most_chars: int = 4000

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        yield from self.labels.values()
        yield self.otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A plan fitted on embeddings names one of the labels: of calibrate_route ("weak", "strong"), or of fit_labels.

    plan: its JSON file, relative to the settings file. embedder: the model whose embeddings it was fitted on. strong_share: share
    of calls that a plan of calibrate_route gives to the strong model; None: what the plan itself says. at_most_s: longest wait for
    the embedding, in seconds.
    """

    strategy: ClassVar[str] = "learned"
    plan: str
    embedder: str
    labels: Mapping[str, Names] = field(hash=False)
    otherwise: Names
    strong_share: float | None = None
    at_most_s: float = 2.0

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        yield from self.labels.values()
        yield self.otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """The models in order, until an answer is accepted; the last one's always is.

    accept: "logprob": mean log probability of its tokens at least min_logprob, or the threshold of a plan of calibrate_threshold;
    "valid": it passes the schema and check of the call, and `check` (in code only) here; "verifier": the model `verifier` says yes.
    Whatever is chosen, schema and check of the call hold too. repairs: how often an earlier model may repair what fails them.
    if_none: return the best answer so far marked accepted=False where budget, deadline or the last model fails, or raise.
    at_most_s: longest wait for the verifier, in seconds.
    """

    strategy: ClassVar[str] = "cascade"
    models: Names
    accept: Literal["logprob", "valid", "verifier"]
    min_logprob: float | None = None
    plan: str | None = None
    verifier: str | None = None
    instructions: str = ""
    repairs: int = 0
    if_none: Literal["best", "raise"] = "best"
    at_most_s: float = 30.0
    max_tokens: int = 256
    check: Callable[[Any], object] | None = field(default=None, compare=False)

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        yield self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """Spread by weight: the same user (by="request": the same request) always meets the same model; the others stand behind it."""

    strategy: ClassVar[str] = "weighted"
    weights: Mapping[str, float] = field(hash=False)
    by: By = "user"

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        for name in self.weights:
            yield (name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A share of users (or requests) meets `canary`, which `stable` stands behind; all others meet `stable`."""

    strategy: ClassVar[str] = "canary"
    stable: Names
    canary: Names
    share: float
    by: By = "user"

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        yield self.stable
        yield self.canary


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfModels:
    """One of a list of names, whatever it is chosen by."""

    models: Names

    def choices(self) -> Iterator[Names]:
        """Yield every list of names that can be chosen, in route order."""
        yield self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheapest(_OfModels):
    """The healthy model for which this request is the cheapest, going by prices and by how long the ledger's answers were."""

    strategy: ClassVar[str] = "cheapest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fastest(_OfModels):
    """The healthy model with the lowest median latency in the ledger; one of fewer than min_calls answers is tried first."""

    strategy: ClassVar[str] = "fastest"
    min_calls: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillOver(_OfModels):
    """The first model whose endpoint has room under its limits within wait_s seconds; where none has, all in order."""

    strategy: ClassVar[str] = "spill_over"
    wait_s: float = 0.0


Strategy = ByTask | Classifier | Learned | Cascade | Weighted | Canary | Cheapest | Fastest | SpillOver
RouteSpec = Names | Strategy
"""A list of models is a fixed ladder."""
STRATEGIES: Mapping[str, type[Strategy]] = {
    kind.strategy: kind for kind in (ByTask, Classifier, Learned, Cascade, Weighted, Canary, Cheapest, Fastest, SpillOver)
}


def named(spec: RouteSpec) -> Iterator[str]:
    """Yield the names that a route chooses from, in route order, repeats included; a route among them is not looked into."""
    if isinstance(spec, tuple):
        yield from spec
    else:
        for names in spec.choices():
            yield from names


def helpers_of(spec: RouteSpec) -> Iterator[str]:
    """Yield the models that a route asks for help: its classifier, verifier or embedder."""
    for name in ("model", "verifier", "embedder"):
        model = getattr(spec, name, None)
        if model:
            yield model


def models_of(name: str, routes: Mapping[str, RouteSpec]) -> Names:
    """Return every model that a name stands for, each once, in route order: itself, or those of the route, its routes included."""
    found: dict[str, None] = {}
    begun: set[str] = set()

    def add(one: str) -> None:
        if one not in routes:
            found[one] = None
        elif one not in begun:  # a cycle is refused where routes are set
            begun.add(one)
            for inner in named(routes[one]):
                add(inner)

    add(name)
    return tuple(found)
