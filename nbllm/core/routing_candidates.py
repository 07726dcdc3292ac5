"""Which stored answers may stand in for a route's decision: those of the rungs that it may choose, in route order.

A route that already holds an exact answer does not ask, embed or spend again: a notebook that is run again costs nothing, whatever
prices, latencies or shares have become meanwhile. Where the request alone decides (rules, weights, canaries) its own choice comes
first; a rule's choice is kept to, because an answer of a model that the rule avoids is no answer to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from nbllm.core.messages import Chat, Content
from nbllm.core.routing_facts import Facts
from nbllm.core.routing_rules import by_task, canary, one_by_one, weighted
from nbllm.settings.strategies import ByTask, Canary, Cascade, Names, RouteSpec, Weighted, models_of, named


class Candidate(Struct, frozen=True, gc=False):
    """One rung whose stored answer will do. cascade: only if that cascade accepts it; None: as it is."""

    model: str
    cascade: Cascade | None = None


def candidates(name: str, routes: Mapping[str, RouteSpec], facts: Facts) -> list[Candidate]:
    """Return the rungs of a route in the order in which their stored answers are looked for, each once."""
    found: dict[str, Candidate] = {}
    for one in _walk(name, routes, facts):
        found.setdefault(one.model, one)
    return list(found.values())


def expanded(names: Names, routes: Mapping[str, RouteSpec]) -> Names:
    """Return the models of names, routes among them with all their models, each once."""
    return one_by_one(model for name in names for model in models_of(name, routes))


def left_open(name: str, routes: Mapping[str, RouteSpec], facts: Facts) -> Names | None:
    """Return the models among which more than the request decides (helpers, answers, users, numbers), None where it alone does."""
    spec = routes.get(name)
    if spec is None or isinstance(spec, tuple):
        return None
    if isinstance(spec, ByTask):
        return left_open(by_task(spec, facts)[0][0], routes, facts)
    if isinstance(spec, Weighted) and spec.by == "request":
        return left_open(weighted(spec, name, facts)[0][0], routes, facts)
    if isinstance(spec, Canary) and spec.by == "request":
        return left_open(canary(spec, name, facts)[0][0], routes, facts)
    return models_of(name, routes)


def asked_by(cascade: Cascade, content: Content) -> Content:
    """Return what an earlier model of a cascade is asked: with log probabilities where they decide."""
    if cascade.accept == "logprob" and isinstance(content, Chat) and content.logprobs in (None, False):
        return replace(content, logprobs=True)
    return content


def _walk(name: str, routes: Mapping[str, RouteSpec], facts: Facts) -> Iterator[Candidate]:
    spec = routes.get(name)
    if spec is None:
        yield Candidate(name)
        return
    if isinstance(spec, Cascade):
        models = expanded(spec.models, routes)
        yield from (Candidate(model, spec) for model in models[:-1])
        yield Candidate(models[-1])
        return
    for one in _in_order(spec, name, facts):
        yield from _walk(one, routes, facts)


def _in_order(spec: RouteSpec, name: str, facts: Facts) -> Names:
    if isinstance(spec, ByTask):
        return by_task(spec, facts)[0]
    if isinstance(spec, Weighted):
        return one_by_one((*weighted(spec, name, facts)[0], *named(spec)))
    if isinstance(spec, Canary):
        return one_by_one((*canary(spec, name, facts)[0], *named(spec)))
    return one_by_one(named(spec))
