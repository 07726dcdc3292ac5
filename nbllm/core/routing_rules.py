"""Routes that need nothing but the request: rules, weights, canaries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import sha256

from nbllm.core.language import language_of
from nbllm.core.routing_facts import Facts
from nbllm.settings.patterns import SEARCHED_CHARS
from nbllm.settings.strategies import ByTask, Canary, Names, Rule, Weighted

Choice = tuple[Names, str]
"""The names that were chosen, in the order in which they are to be tried, and why."""


def by_task(spec: ByTask, facts: Facts) -> Choice:
    """Return what the first rule that holds names, `otherwise` behind it."""
    for number, rule in enumerate(spec.rules, start=1):
        reasons = _holds(rule, facts)
        if reasons is not None:
            return one_by_one((*rule.use, *spec.otherwise)), f"rule {number} ({', '.join(reasons) or 'always'})"
    return spec.otherwise, "no rule holds"


def weighted(spec: Weighted, name: str, facts: Facts) -> Choice:
    """Return the model of this user's or request's share of the hash, the others behind it, the heaviest first."""
    place = share_of(name, facts.spread_by(spec.by))
    total, upto = sum(spec.weights.values()), 0.0
    chosen = ""
    for model, weight in spec.weights.items():
        if weight > 0:
            chosen = model  # the last one that has a weight, should rounding leave the place above the sum
            upto += weight / total
            if place < upto:
                break
    rest = sorted((m for m, w in spec.weights.items() if w > 0 and m != chosen), key=lambda m: -spec.weights[m])
    share = spec.weights[chosen] / total
    return (chosen, *rest), f"{share:.3g} of {_by(spec.by, facts)} by weight"


def canary(spec: Canary, name: str, facts: Facts) -> Choice:
    """Return the canary for its share, the stable models for the rest."""
    if share_of(name, facts.spread_by(spec.by)) < spec.share:
        return one_by_one((*spec.canary, *spec.stable)), f"canary for {spec.share:.3g} of {_by(spec.by, facts)}"
    return spec.stable, f"stable: not in the canary's {spec.share:.3g} of {_by(spec.by, facts)}"


def share_of(name: str, who: str) -> float:
    """Return a place in [0, 1) that is always the same for a route and a user or request, and even over many of them."""
    return int.from_bytes(sha256(f"{name}\n{who}".encode("utf-8", "surrogatepass")).digest()[:7], "big") / 2**56


def one_by_one(names: Iterable[str]) -> Names:
    """Return names in order, each once."""
    return tuple(dict.fromkeys(names))


def _by(by: str, facts: Facts) -> str:
    return "users" if by == "user" and facts.user is not None else "requests"


def _holds(rule: Rule, facts: Facts) -> list[str] | None:
    """Return why a rule holds, None when it does not. The cheap questions come first."""
    reasons: list[str] = []
    for kind, wanted, has in (("feature", rule.feature, facts.feature), ("user", rule.user, facts.user)):
        if wanted is not None:
            if has is None or not fnmatchcase(has, wanted):
                return None
            reasons.append(f"{kind} {has}")
    if rule.tag is not None:
        tag = next((tag for tag in facts.tags if fnmatchcase(tag, rule.tag)), None)
        if tag is None:
            return None
        reasons.append(f"tag {tag}")
    if rule.longer_than is not None or rule.shorter_than is not None:
        if not _fits(rule, facts.chars):
            return None
        reasons.append(f"{facts.chars} characters")
    return _text_holds(rule, facts.text, reasons)


def _fits(rule: Rule, chars: int) -> bool:
    return (rule.longer_than is None or chars > rule.longer_than) and (rule.shorter_than is None or chars < rule.shorter_than)


def _text_holds(rule: Rule, text: str, reasons: list[str]) -> list[str] | None:
    if rule.contains:
        folded = text.casefold()
        found = next((one for one in rule.contains if one.casefold() in folded), None)
        if found is None:
            return None
        reasons.append(f"contains {found!r:.40}")
    if rule.matches is not None:
        if _compiled(rule.matches).search(text[:SEARCHED_CHARS]) is None:
            return None
        reasons.append("matches its pattern")
    if rule.language is not None:
        if language_of(text) != rule.language:
            return None
        reasons.append(f"language {rule.language}")
    return reasons


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
