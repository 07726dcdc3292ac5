"""What comes after a rung that failed, how long a rung may take, and what is said when none answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from nbllm.core.messages import Attempt, OnInterrupt, Rung
from nbllm.errors import AttemptFailed, ContextTooLong, StreamInterrupted, Truncated, ValidationFailed
from nbllm.money import format_usd

FALLBACK_RESERVE_S = 0.05
"""Seconds before the deadline at which the last rung must end where a stale or static answer stands behind it."""


class Next(Enum):
    """RUNG: try the next one. STOP: no rung is left; a stale answer, a static one, else one error with every cause.

    RAISE: this error as it is, at once: another model would meet the same (a wrong parameter), or must not be asked (a refusal).
    """

    RUNG = "rung"
    STOP = "stop"
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next; `rungs` are those to go on with, the next one first (RUNG), or ()."""

    next: Next
    rungs: tuple[Rung, ...] = ()


def next_step(error: Exception, failed: Rung, left: Sequence[Rung], *, on_interrupt: OnInterrupt = "restart") -> Step:
    """Decide what follows `error` on the rung `failed`, with the rungs `left` after it.

    Errors of an attempt say by their `advice` whether another rung may help. An answer that did not pass its schema or check, or
    that left no text, may be better elsewhere. Everything else (budgets, settings, the deadline, the caller's own mistakes) is
    the same on every rung and is raised. After ContextTooLong only rungs are left whose window is known to be larger. on_interrupt
    "raise": who has read the pieces that came cannot take them back, so nothing may follow them.
    """
    if isinstance(error, AttemptFailed):
        broke_off = isinstance(error, StreamInterrupted) or bool(error.partial)
        if not error.advice.next_rung or (broke_off and on_interrupt == "raise"):
            return Step(Next.RAISE)
    elif not isinstance(error, ValidationFailed | Truncated):
        return Step(Next.RAISE)
    rungs = tuple(left)
    if isinstance(error, ContextTooLong):
        rungs = tuple(rung for rung in rungs if _larger(rung, failed))
    return Step(Next.RUNG, rungs) if rungs else Step(Next.STOP)


def attempt_share_s(left_s: float, *, rungs_left: int, attempt_s: float | None, streamed: bool) -> float | None:
    """Return the most seconds that one attempt may take, None where only the deadline itself limits it.

    left_s: until the deadline. rungs_left: rungs from this one on, itself counted. attempt_s: the caller's own limit, which holds
    for streams too. A whole answer has no first token whose timer could end it early, so with n rungs left it gets 1/n of the
    time: a silent primary cannot starve its fallback.
    """
    left_s = max(0.0, left_s)
    if attempt_s is not None:
        return min(attempt_s, left_s)
    return left_s / rungs_left if not streamed and rungs_left > 1 else None


def explain(
    failures: Sequence[tuple[str, Exception]], attempts: Sequence[Attempt], *, waited_s: float, spent_usd: Decimal | None
) -> str:
    """Return a few lines that say what was tried, waited and spent, for the error that holds every cause.

    failures: each rung's label and its last error, in the order of the ladder. attempts: all requests of the call. waited_s:
    waited between them for backoff and limits. spent_usd: None when unknown.
    """
    sent = _sent(attempts)
    spent = "cost unknown" if spent_usd is None else f"{format_usd(spent_usd)} spent"
    lines = [
        f"No model answered: {_counted(len(failures), 'model')}, {_counted(sent, 'request')}, {waited_s:.1f} s waited, {spent}."
    ]
    for label, error in failures:
        here = [attempt for attempt in attempts if attempt.rung == label or label.startswith(f"{attempt.rung} ")]
        count = _counted(_sent(here), "request")
        if not _sent(here):
            count = f"{_counted(len(here), 'try', 'tries')}, nothing sent" if here else "not sent"
        lines.append(f"  {label} ({count}): {type(error).__name__}: {_first_line(error)}")
    return "\n".join(lines)


def _larger(rung: Rung, failed: Rung) -> bool:
    return rung.context_tokens is not None and (failed.context_tokens is None or rung.context_tokens > failed.context_tokens)


def _sent(attempts: Sequence[Attempt]) -> int:
    return sum(attempt.sent is not False for attempt in attempts)


def _counted(number: int, noun: str, many: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {many or noun + 's'}"


def _first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return line if len(line) <= 200 else f"{line[:199]}…"
