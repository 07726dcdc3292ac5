"""What a guard says."""

from __future__ import annotations

from msgspec import Struct


class Verdict(Struct, frozen=True, gc=False):
    """One guard's answer about two texts. `detail` says in words what differs; it is empty when the guard passed."""

    guard: str
    passed: bool
    detail: str = ""


def passed(guard: str) -> Verdict:
    """Return that the guard saw no difference."""
    return Verdict(guard, True)


def failed(guard: str, detail: str) -> Verdict:
    """Return that the guard saw a difference, and which."""
    return Verdict(guard, False, detail)


def apart(guard: str, here: object, there: object) -> Verdict:
    """Return a difference as "7 days here, 17 days there"."""
    return Verdict(guard, False, f"{here or 'nothing'} here, {there or 'nothing'} there")
