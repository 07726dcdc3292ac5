"""One switch for tests: whether waits that nobody needs to live through take time.

Only waits that nbllm chooses for itself are shortened: backoff between retries, Retry-After, and the pace of simulated models.
Deadlines, first-token, idle and rate limits are never touched, because shortening those would change what is being tested.
`nbllm.testing.offline()` turns the switch; the stages ask it.
"""

from __future__ import annotations

from threading import Lock

_lock = Lock()
_holders = 0


def skipped() -> bool:
    """Whether voluntary waits take no time just now."""
    return _holders > 0


def paced_s(wait_s: float) -> float:
    """Return how long to sleep really for a voluntary wait of `wait_s` seconds: that long, or 0 while waits are skipped."""
    return 0.0 if _holders else max(0.0, wait_s)


def skip() -> None:
    """Skip voluntary waits in the whole process until a matching `unskip`. Nests."""
    global _holders  # noqa: PLW0603  one process-wide switch: the waits happen on another thread than the test
    with _lock:
        _holders += 1


def unskip() -> None:
    """Undo one `skip`."""
    global _holders  # noqa: PLW0603  see skip
    with _lock:
        if _holders == 0:
            raise RuntimeError("unskip() without skip(): use nbllm.testing.offline(), which keeps them paired.")
        _holders -= 1
