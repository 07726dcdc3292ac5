"""retry: what is sent again, after how long, how often."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import Settings, errors
from nbllm.core.backoff import RetryBudget
from nbllm.core.messages import Request, Sink
from nbllm.core.reply import Reply
from nbllm.pipeline.retry import RetryStage
from nbllm.testing import run_virtual
from tests.pipeline.making import Inner, Watcher, clock, request

NO_RETRY = [
    errors.AuthenticationFailed,
    errors.PermissionDenied,
    errors.ModelNotFound,
    errors.BadParameter,
    errors.ContextTooLong,
    errors.Refused,
    errors.RedirectRefused,
    errors.AnswerTooLarge,
    errors.BreakerOpen,
    errors.ThrottleTimeout,
]


def stage(inner: Inner, **settings: object) -> RetryStage:
    made = Settings().replace_values("test", **settings)
    return RetryStage(inner, clock(), lambda: made)


def test_retries_with_full_jitter_and_keeps_every_cause() -> None:
    """Three tries, waiting a jittered exponential backoff between them; the last error carries the ones before."""

    async def run() -> None:
        inner = Inner(
            errors.ServerFailed("a", status=500), errors.ServerFailed("b", status=500), errors.ServerFailed("c", status=500)
        )
        with pytest.raises(errors.ServerFailed, match="c") as caught:
            await stage(inner)(request(), Watcher())
        assert [exc.summary for exc in caught.value.earlier] == ["a", "b"]
        gaps = [b - a for a, b in zip(inner.times, inner.times[1:], strict=False)]
        assert gaps == pytest.approx([0.125, 0.25])

    run_virtual(run())


@pytest.mark.parametrize("kind", NO_RETRY, ids=lambda k: k.__name__)
def test_what_no_retry_can_mend_is_not_retried(kind: type[errors.AttemptFailed]) -> None:
    """A wrong key, a wrong parameter, a refusal ... is sent once."""

    async def run() -> None:
        inner = Inner(kind("no"), "ok")
        with pytest.raises(kind):
            await stage(inner)(request(), Watcher())
        assert len(inner.requests) == 1

    run_virtual(run())


def test_a_refused_schema_is_sent_again_at_once_and_is_no_retry() -> None:
    """The next attempt has the schema in the prompt: no wait, no retry used, once; a second refusal is raised."""

    async def run() -> None:
        inner = Inner(errors.SchemaModeRefused("no", status=400), "ok")
        assert (await stage(inner, retry_budget_floor=0)(request(retries=0), Watcher())).text == "ok"
        assert inner.times[0] == inner.times[1]
        inner = Inner(errors.SchemaModeRefused("no", status=400))
        with pytest.raises(errors.SchemaModeRefused):
            await stage(inner)(request(), Watcher())
        assert len(inner.requests) == 2

    run_virtual(run())


def test_retry_after_is_waited_for_with_a_margin() -> None:
    """A 429 with Retry-After that fits is waited for, 5% longer, and then sent again."""

    async def run() -> None:
        inner = Inner(errors.RateLimited("slow", retry_after_s=7.0, status=429), "ok")
        made = request()
        assert (await stage(inner)(made, Watcher())).text == "ok"
        assert inner.times[1] - inner.times[0] == pytest.approx(7.35)
        assert made.call is not None
        assert made.call.waited_s == pytest.approx(7.35)

    run_virtual(run())


def test_peer_bug_retry_after_3600_is_not_ignored() -> None:
    """A Retry-After beyond the deadline means no wait at all: the error is handed up at once for the next rung."""

    async def run() -> None:
        inner = Inner(errors.RateLimited("slow", retry_after_s=3600.0, status=429), "ok")
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.RateLimited):
            await stage(inner)(request(deadline_s=30), Watcher())
        assert asyncio.get_running_loop().time() == began
        assert len(inner.requests) == 1

    run_virtual(run())


def test_a_dead_endpoint_gets_no_retry_storm() -> None:
    """A hundred calls to a dead endpoint are retried at most 20 times (a fifth) and never under the floor of three."""

    async def run() -> None:
        inner = Inner(errors.ServerFailed("dead", status=503))
        retry = stage(inner)
        for _ in range(100):
            with pytest.raises(errors.ServerFailed):
                await retry(request(), Watcher())
        assert 103 <= len(inner.requests) <= 120

    run_virtual(run())


def test_the_retry_budget_is_per_endpoint_and_set_by_settings() -> None:
    """With a share and floor of 0 nothing is retried."""

    async def run() -> None:
        inner = Inner(errors.ServerFailed("dead", status=503))
        with pytest.raises(errors.ServerFailed):
            await stage(inner, retry_budget_share=0.0, retry_budget_floor=0)(request(), Watcher())
        assert len(inner.requests) == 1

    run_virtual(run())


@pytest.mark.parametrize(("rungs_left", "on_interrupt", "tries"), [(1, "restart", 3), (2, "restart", 1), (1, "raise", 1)])
def test_interrupted_stream(rungs_left: int, on_interrupt: str, tries: int) -> None:
    """An interrupted stream is begun anew here only when no other rung is left and restarting is wanted; the watcher is told."""

    async def run() -> None:
        inner = Inner(errors.StreamInterrupted("cut"))
        made = request(on_interrupt=on_interrupt)
        assert made.rung is not None
        watcher = Watcher()
        with pytest.raises(errors.StreamInterrupted):
            await stage(inner)(made.on(made.rung, rungs_left=rungs_left), watcher)
        assert len(inner.requests) == tries
        assert watcher.events == ["restarted: interrupted"] * (tries - 1)

    run_virtual(run())


@pytest.mark.parametrize(("rungs_left", "tries"), [(1, 3), (2, 1)])
def test_a_first_token_timeout_goes_to_the_next_rung(rungs_left: int, tries: int) -> None:
    """A TTFT timeout is not retried while another rung remains."""

    async def run() -> None:
        inner = Inner(errors.FirstTokenTimeout("slow"))
        made = request()
        assert made.rung is not None
        with pytest.raises(errors.FirstTokenTimeout):
            await stage(inner)(made.on(made.rung, rungs_left=rungs_left), Watcher())
        assert len(inner.requests) == tries

    run_virtual(run())


def test_peer_bug_retries_are_not_multiplied() -> None:
    """retries=0 sends once, retries=2 three times, whatever the settings of any SDK below."""

    async def run() -> None:
        for retries in (0, 1, 2):
            inner = Inner(errors.ServerFailed("x", status=500))
            with pytest.raises(errors.ServerFailed):
                await stage(inner)(request(retries=retries), Watcher())
            assert len(inner.requests) == retries + 1

    run_virtual(run())


def test_what_was_refused_unsent_allows_no_retries() -> None:
    """A thousand calls that the breaker refuses are no attempts: they do not raise the fifth that may be retried."""

    async def run() -> None:
        async def refuse(request: Request, sink: Sink) -> Reply:
            raise errors.BreakerOpen("resting", rung="one/m")

        retry = RetryStage(refuse, clock(), Settings)
        for _ in range(1000):
            with pytest.raises(errors.BreakerOpen):
                await retry(request(), Watcher())
        inner = Inner(errors.ServerFailed("dead", status=503))
        retry._inner = inner
        for _ in range(4):
            with pytest.raises(errors.ServerFailed):
                await retry(request(retries=10), Watcher())
        assert len(inner.requests) == 4 + RetryBudget().floor

    run_virtual(run())
