"""What cascades keep: rejected answers as what they are, verdicts, log probabilities."""

from __future__ import annotations

import asyncio
import json

from nbllm.pipeline.road import Hit
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import (
    LARGE,
    LOGPROB,
    SMALL,
    VALID,
    VERIFIER,
    calls,
    sure,
    world,
)


def test_a_rejected_answer_is_kept_as_what_it_is() -> None:
    """It is the cheap model's answer, which a call of that model may have; the cascade neither serves nor buys it again."""

    async def run() -> None:
        there = world({"r": VALID | {"check": lambda text: "large" in text}})
        assert (await there.ask("q", "r")).rung == LARGE
        direct = await there.ask("q", SMALL)
        assert (direct.source, direct.text) == ("cache", "from small")
        assert (await there.ask("q", "r")).source == "cache"
        assert calls(there) == {"small": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_a_verdict_is_kept_with_its_answer() -> None:
    """Yes and no are kept with the entry, by who was asked what; another verifier has to be asked anew."""

    async def run() -> None:
        there = world({"r": VERIFIER, "strict": {**VERIFIER, "instructions": "Be strict."}}, help="yes")
        await there.ask("q", "r")
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert list(entry.answer["verdicts"].values()) == [True]
        assert isinstance(there.road.try_hit(there.request("q", "r")), Hit)
        assert not isinstance(there.road.try_hit(there.request("q", "strict")), Hit)
        there.providers["help"]._default = "no"
        reply = await there.ask("q", "strict")
        assert (reply.rung, calls(there)) == (LARGE, {"small": 1, "help": 2, "large": 1})
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert sorted(entry.answer["verdicts"].values()) == [False, True]
        assert (await there.door("q", "r")).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_moved_cut_off_judges_kept_answers_anew() -> None:
    """The log probabilities are kept with the answer: a lower cut-off serves it, a higher one does not, neither buys it again."""

    async def run() -> None:
        there = world({"r": LOGPROB}, small=sure("s", -0.4))
        assert (await there.ask("q", "r")).rung == SMALL
        there.configure(routes={"r": {**LOGPROB, "min_logprob": -0.1}})
        assert (await there.ask("q", "r")).rung == LARGE
        there.configure(routes={"r": LOGPROB})
        reply = await there.door("q", "r")
        assert (reply.rung, reply.source) == (SMALL, "cache")
        assert calls(there) == {"small": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_identical_cascades_share_their_runs() -> None:
    """50 at once: each model is asked once, the verifier once, and everybody has an answer."""

    async def run() -> None:
        there = world({"r": VERIFIER}, small=Script(pieces=["s"], first_after_s=1), help=Script(pieces=["no"], first_after_s=1))
        replies = await asyncio.gather(*(there.ask("q", "r") for _ in range(50)))
        assert {r.text for r in replies} == {"from large"}
        assert calls(there) == {"small": 1, "help": 1, "large": 1}
        assert all(r.accepted for r in replies)
        await there.close()

    run_virtual(run())


def test_kept_entries_stay_what_they_were() -> None:
    """Keeping a verdict changes nothing else of an entry: age, time to live, cost, tags."""

    async def run() -> None:
        there = world({"r": VERIFIER}, help=Script(pieces=["yes"], first_after_s=5))
        await there.ask("q", "r", ttl_s=60.0, tags=("t",), feature="f")
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert entry.expires_at == entry.created_at + 60
        assert entry.tags == ("t", "feature:f")
        assert entry.cost_usd is not None
        assert json.loads(json.dumps(entry.answer["verdicts"]))
        await there.close()

    run_virtual(run())
