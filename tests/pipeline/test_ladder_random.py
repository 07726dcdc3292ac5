"""ladder: whatever the rungs do, one outcome, from the right place, with no request more than needed."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm import errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, outcome

ELSEWHERE = [
    errors.ServerFailed("no", status=500),
    errors.BadAnswer("no"),
    errors.RateLimited("no", status=429, retry_after_s=9999),
    errors.AuthenticationFailed("no", status=401),
    errors.ModelNotFound("no", status=404),
    errors.AnswerTooLarge("no"),
    errors.StreamInterrupted("no"),
    Script(pieces=["half"], then=errors.StreamInterrupted("no")),
]
HERE = [errors.BadParameter("no", status=400), errors.Refused("no", status=400)]
STEPS = st.one_of(st.just("ok"), st.sampled_from(ELSEWHERE), st.sampled_from(HERE), st.sampled_from(ELSEWHERE))


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=5),
    stale_at=st.none() | st.integers(0, 4),
    stale_ok=st.booleans(),
    static=st.none() | st.just("sorry"),
    watched=st.booleans(),
)
def test_any_ladder_has_one_outcome(
    steps: list[str | Exception | Script], stale_at: int | None, stale_ok: bool, static: str | None, watched: bool
) -> None:
    """The first good rung answers, else a stale entry, else the static answer, else one error with every cause in order.

    No rung is asked after the first that answers or whose error no other rung can mend, none twice, and none is left out.
    """

    async def run() -> None:
        names = [f"e{n}/m" for n in range(len(steps))]
        providers = {f"e{n}": FakeProvider() for n in range(len(steps))}
        world = World(providers=providers)
        old = stale_at is not None and stale_at < len(steps)
        if old and stale_at is not None:
            providers[f"e{stale_at}"].enqueue("old")
            await world.ask("q", names[stale_at], ttl_s=1)
            await asyncio.sleep(10)
        for step, provider in zip(steps, providers.values(), strict=True):
            provider.enqueue(step)
        before = [provider.calls for provider in providers.values()]
        watcher = Watcher()
        options = {"retries": 0, "static": static, "stale_ok_s": 1000.0 if stale_ok else None, "watched": watched}
        result = await outcome(world.ask("q", *names, sink=watcher, **options))
        asked = [provider.calls - was for provider, was in zip(providers.values(), before, strict=True)]

        last = next((n for n, step in enumerate(steps) if step == "ok" or step in HERE), len(steps) - 1)
        assert asked == [1] * (last + 1) + [0] * (len(steps) - last - 1)
        if steps[last] == "ok":
            assert isinstance(result, Reply)
            assert (result.text, result.source, result.rung) == ("ok", "model", names[last])
            assert [a.rung for a in result.attempts] == names[: last + 1]
        elif steps[last] in HERE:
            assert type(result) is type(steps[last])
        elif old and stale_ok and stale_at is not None:
            assert isinstance(result, Reply)
            assert (result.text, result.source, result.rung) == ("old", "stale", names[stale_at])
        elif static is not None:
            assert isinstance(result, Reply)
            assert (result.text, result.source) == ("sorry", "static")
        else:
            causes = result.exceptions if isinstance(result, errors.AllRungsFailed) else [result]
            assert [type(cause) for cause in causes] == [type(step.then if isinstance(step, Script) else step) for step in steps]
        shown = [event for event in watcher.events if event != "started"]
        if isinstance(result, Reply):
            after = [e for n, e in enumerate(shown) if not any(str(later).startswith("restarted") for later in shown[n:])]
            assert "".join(map(str, after)) == result.text, "what is seen last is the answer"
        await world.close()

    run_virtual(run())
