"""A model measured as judge on labelled pairs: how it is asked, and the arithmetic of what it changes."""

from __future__ import annotations

import asyncio
import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.guards_on_pairs import main
from bench.judge_on_pairs import Answer, Asking, Way, ask_all, by_log_odds, hits, let_through, log_odds, said
from bench.pair_hits import best, middle, ranked, rate, resampled, spread
from nbllm import Client, Endpoint
from nbllm.core.messages import Delta
from nbllm.core.ports import Wire
from nbllm.core.reply import Reply
from nbllm.errors import AuthenticationFailed, NbllmError
from nbllm.pipeline.judging import messages
from nbllm.testing import FakeProvider

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=40)
MOST = st.sampled_from([0.0, 0.1, 0.3, 1.0])
ENDPOINT = Endpoint(base_url="http://127.0.0.1:9/v1", input_usd_per_mtok=1, output_usd_per_mtok=1)


def ask(home: Path, provider: FakeProvider, pairs: list[tuple[str, str]], *, log_odds: bool = False) -> list[Answer]:
    """Ask a judge that is a fake about pairs."""
    with Client(endpoints={"judge": ENDPOINT}, home=home, providers={"openai_compatible": provider}) as client:
        return asyncio.run(ask_all(client, pairs, Asking("m", "http://127.0.0.1:9/v1", 2, log_odds)))


@given(pairs=PAIRS, most=MOST)
def test_resampled_hits_are_those_of_the_pairs_drawn(pairs: list[tuple[int, bool, bool]], most: float) -> None:
    """Held against `best` on the pairs themselves, where a draw holds each once, and on the repeated pairs of another draw."""
    score, same, kept = (np.array(column) for column in zip(*pairs, strict=True))
    counts = np.vstack([np.ones(len(pairs), dtype=int), resampled(len(pairs), seed=1, draws=1)])
    found = spread(score.astype(float), same, [kept, np.ones_like(kept)], most, counts)
    for draw, shares in zip(counts, found, strict=True):
        again = np.repeat(np.argsort(-score, kind="stable"), draw[np.argsort(-score, kind="stable")])
        expected = [best(score[again].astype(float), same[again], way[again], most)[0] for way in (kept, np.ones_like(kept))]
        # Copies of one pair are served together or not at all; a cut between them may serve more.
        assert (shares <= np.array(expected) + 1e-12).all()
    assert found[0] == pytest.approx([best(score.astype(float), same, way, most)[0] for way in (kept, np.ones_like(kept))])


def test_draws_are_as_many_pairs_as_there_are() -> None:
    """Each draw holds as many pairs as the sample, the same with the same seed; the middle 95% leaves out both ends."""
    counts = resampled(50, seed=3, draws=200)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts == resampled(50, seed=3, draws=200)).all()
    assert middle(np.arange(1001.0)) == (25.0, 975.0)


@given(pairs=PAIRS)
def test_the_rank_statistic_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool, bool]]) -> None:
    """Counted one by one: a same pair above another one is 1, a tie a half; with one kind alone there is nothing to say."""
    score, same, _ = (np.array(column) for column in zip(*pairs, strict=True))
    one_by_one = [float(a > b) + 0.5 * float(a == b) for a in score[same] for b in score[~same]]
    found = ranked(score.astype(float), same)
    assert math.isnan(found) if not one_by_one else found == pytest.approx(np.mean(one_by_one))


def test_a_rate_comes_with_what_it_may_be() -> None:
    """Clopper and Pearson's interval of 5 in 50, by their table; nothing seen says nothing."""
    share, (low, high) = rate(np.arange(50) < 5)
    assert (share, round(low, 4), round(high, 4)) == (0.1, 0.0333, 0.2181)
    assert rate(np.zeros(0, dtype=bool))[1] == (0.0, 1.0)


def test_the_judge_is_asked_as_the_semantic_cache_asks_it(tmp_path: Path) -> None:
    """The same words, temperature and limit of tokens; yes and no are read, anything else and no text at all refuse."""
    says = {"a": "YES", "b": "no.", "c": "Perhaps", "d": ""}

    def answer(wire: Wire) -> str:
        return next(text for query, text in says.items() if f"<first>\n{query}\n" in wire.content.messages[-1]["content"])

    judge = FakeProvider(default=answer)
    answers = ask(tmp_path, judge, [(query, "q") for query in says])
    assert [one.yes for one in answers] == [True, False, None, None]
    sent = judge.requests[0].content
    assert (sent.messages, sent.temperature, sent.max_tokens, sent.logprobs) == (messages("a", "q"), 0, 16, None)


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    """Answers are stored, with what they took and cost when they were asked for."""
    pairs = [("a", "b"), ("c", "d")]
    first = ask(tmp_path, FakeProvider(default="YES"), pairs)
    again = FakeProvider(default="NO")
    second = ask(tmp_path, again, pairs)
    assert again.calls == 0
    assert [(one.yes, one.stored) for one in second] == [(True, True)] * 2
    assert [(one.usd, one.tokens) for one in second] == [(one.usd, one.tokens) for one in first]
    assert all(one.seconds > 0 for one in (*first, *second))


def test_a_judge_that_cannot_be_asked_is_not_measured(tmp_path: Path) -> None:
    """A wrong key says nothing of the model: it ends the measurement instead of counting as refusals."""
    with pytest.raises(NbllmError):
        ask(tmp_path, FakeProvider(default=AuthenticationFailed("no")), [("a", "b")])


@pytest.mark.parametrize(
    ("alternatives", "expected"),
    [
        ({"YES": 0.6, " yes": 0.1, "No": 0.07, "The": 0.01}, math.log(10)),
        ({"YES": 0.9, "The": 0.1}, math.log(9)),
        ({"Y": 0.6, " yes": 0.1, "N": 0.05, "NO": 0.02, "You": 0.1, "Not": 0.1, "": 0.03}, math.log(10)),
        ({"The": 0.5, "A": 0.2}, 0.0),
    ],
)
def test_log_odds_are_those_of_the_first_token(tmp_path: Path, alternatives: dict[str, float], expected: float) -> None:
    """All spellings of a word count, and its beginnings; one that is not there is as likely as the last that is, at most."""
    entry = {"token": "x", "logprob": -1.0, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in alternatives.items()]}
    judge = FakeProvider(default=[Delta(text="YES", logprobs=(entry,))])
    (answer,) = ask(tmp_path, judge, [("a", "b")], log_odds=True)
    assert judge.requests[0].content.logprobs == 20
    assert answer.log_odds == pytest.approx(expected)


def test_without_log_probabilities_there_are_no_log_odds() -> None:
    """NaN, and a line that says so, not a number."""
    reply = Reply(text="YES", model="m", rung="m", source="model", finish_reason="stop", call_id="c")
    assert math.isnan(log_odds(reply))
    flags = np.ones(3, dtype=bool)
    assert by_log_odds(np.full(3, math.nan), np.ones(3), flags, flags) == ["The judge's server gave no log probabilities."]


def test_a_judge_that_knows_adds_hits_and_one_that_nods_adds_none() -> None:
    """A perfect judge serves every true pair, surely more than guards that stop nothing; one that always says yes none more."""
    rng = np.random.default_rng(5)
    score, same = rng.random(400), rng.random(400) < 0.4
    everything = np.ones(400, dtype=bool)
    base = Way("and guards", everything)
    table = hits((base, Way("knows", same, everything), Way("nods", everything, everything)), base, score, same)
    cells = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in table[2:]}
    assert cells["knows"][0].startswith(f"{same.mean():.1%}")
    assert float(cells["knows"][1].split("(")[1].split("%")[0]) > 10
    assert cells["nods"][1] == "+0.0% (+0.0% to +0.0%)"
    assert (cells["and guards"][1:3], cells["nods"][2]) == (["", "none"], "0%")
    assert [cells[name][3] == "refused" for name in ("and guards", "knows")] == [True, False]


def test_what_is_let_through_is_counted_by_label_and_nearness() -> None:
    """Four groups, each with its own share and interval."""
    score, same = np.array([0.95, 0.95, 0.5, 0.5]), np.array([True, False, True, False])
    head, _, row = let_through({"judge": np.array([True, False, False, True])}, score, same)
    assert head.count("(2)") == 2
    assert [cell.split(" (")[0] for cell in row.split(" | ")[1:]] == ["50.0%", "50.0%", "100.0%", "0.0%"]


def test_what_a_judge_says_is_summed_up_in_three_lines() -> None:
    """Agreement leaves out what was no answer, which is counted; time and cost are of those that are known."""
    answers = [
        Answer(True, False, 0.2, Decimal("0.001"), (100, 1)),
        Answer(False, True, 0.4, Decimal("0.003"), (100, 1)),
        Answer(None),
    ]
    agreement, unclear, cost = said(answers, np.array([True, True, True]))
    assert "50.0% of 2 hand labels" in agreement
    assert unclear.startswith("1 answers (33.3%")
    assert cost.startswith("2 were asked, 1 were stored. One question: median 0.30 s, p95 0.39 s, 100 tokens in and 1 out")
    assert cost.endswith("$0.002000.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty labelled pairs with vectors, as the real ones are stored."""
    rows = [{"a": f"How do I {n} it?", "b": f"How can I {n} it?", "same": n % 2 == 0} for n in range(30)]
    (tmp_path / "question_pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    rng = np.random.default_rng(0)
    vectors = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (rng.random((30, 8)), rng.random((30, 8)))]
    np.savez(tmp_path / "question_pairs_minilm.npz", a=vectors[0].astype(np.float16), b=vectors[1].astype(np.float16))
    return tmp_path


def test_the_command_measures_a_judge_on_a_sample(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line to the tables, with a simulated model, which says neither yes nor no: it refuses all of them."""
    main([str(folder), "--judge", "sim/small", "--sample", "12", "--seed", "4", "--log-odds", "--home", str(folder / "home")])
    told = capsys.readouterr().out
    assert "Judge sim/small: 12 pairs" in told
    assert "12 answers (100.0%" in told
    assert "| and judge | 0.0% (0.0% to 0.0%)" in told
    with pytest.raises(SystemExit, match="could not be measured"):
        main([str(folder), "--judge", "nowhere", "--home", str(folder / "home")])
