"""What a model is worth as judge of the semantic cache, on labelled question pairs. Part of bench/guards_on_pairs.py.

It is asked as the semantic cache asks it: the same words, limits and reading of the answer, through a Client. Whoever says
neither yes nor no, or nothing in time, refuses. Answers are kept in the client's home, save those that a limit on tokens cut.

Intervals are of the pairs: exact ones (Clopper-Pearson) for shares, the middle 95% of 1,000 resamples of pairs for hits and AUC.
They say what another sample of such pairs would give, and nothing of labels that are wrong.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from bench.pair_hits import Flags, Interval, Scores, best, calibrated, middle, ranked, rate, resampled, shown, spread
from nbllm import Client, Endpoint
from nbllm.calibration import judge_agreement
from nbllm.core.reply import Reply
from nbllm.errors import AttemptTimeout, BadAnswer, DeadlineExceeded, Refused, Truncated
from nbllm.pipeline.judging import BRIEF, JUDGE_S, messages, verdict

ERRORS = (0.05, 0.10)
NEAR = 0.9
"""Pairs at least this similar are looked at by themselves: they are what a cache would serve."""
SEED = 0
_SHOWN_EVERY = 100
_ALTERNATIVES = 20
"""Log probabilities that are asked for at each token; the most that OpenAI's shape has."""
_SILENT = (BadAnswer, Truncated, Refused, DeadlineExceeded, AttemptTimeout)
"""What the cache takes for no answer. Other failures say nothing of the model as judge, and end the measurement."""


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how. url: of a server that the settings do not name. home: None for nbllm's own."""

    model: str
    url: str | None = None
    at_once: int = 1
    log_odds: bool = False
    home: Path | None = None

    def client(self) -> Client:
        more: dict[str, Any] = {} if self.home is None else {"home": self.home}
        return Client(endpoints={"judge": Endpoint(base_url=self.url)}, **more) if self.url else Client(**more)

    @property
    def model_id(self) -> str:
        return f"judge/{self.model}" if self.url else self.model


@dataclass(frozen=True)
class Answer:
    """What a judge said of one pair. yes: None for neither. seconds, usd: when it was asked for, not now when it is stored."""

    yes: bool | None
    stored: bool = False
    seconds: float = math.nan
    usd: Decimal | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    log_odds: float = math.nan


def measure(pairs: Sequence[tuple[str, str]], score: Scores, same: Flags, passed: Flags, asking: Asking) -> None:
    """Ask the judge about every pair and print what it changes, beside the guards."""
    with asking.client() as client:
        answers = asyncio.run(ask_all(client, pairs, asking))
    yes = np.array([answer.yes is True for answer in answers])
    everything = np.ones(len(same), dtype=bool)
    print(f"Judge {asking.model}: {len(same):,} pairs, {same.mean():.1%} of them with the same answer.\n")
    print("\n".join(said(answers, same)), "\n")
    print("\n".join(let_through({"guards": passed, "judge": yes, "guards and judge": passed & yes}, score, same)), "\n")
    guards = Way("and guards", passed)
    ways = (Way("cosine alone", everything), guards, Way("and judge", yes, everything), Way("and both", passed & yes, passed))
    print("\n".join(hits(ways, guards, score, same)))
    if asking.log_odds:
        print("\n" + "\n".join(by_log_odds(np.array([answer.log_odds for answer in answers]), score, same, passed)))


# ---------------------------------------------------------------------- asking


async def ask_all(client: Client, pairs: Sequence[tuple[str, str]], asking: Asking) -> list[Answer]:
    """Ask about each pair, so many at once. Raises NbllmError when the judge cannot be reached at all; what came is kept."""
    free, done = asyncio.Semaphore(asking.at_once), 0

    async def one(pair: tuple[str, str]) -> Answer:
        nonlocal done
        async with free:
            answer = await _ask(client, pair, asking)
        done += 1
        if done % _SHOWN_EVERY == 0:
            print(f"{done:,} of {len(pairs):,}", file=sys.stderr, flush=True)
        return answer

    return list(await asyncio.gather(*map(one, pairs)))


async def _ask(client: Client, pair: tuple[str, str], asking: Asking) -> Answer:
    more: dict[str, Any] = {"logprobs": _ALTERNATIVES} if asking.log_odds else {}
    try:
        reply = await client.aask(
            messages(*pair), model=asking.model_id, feature="judge on pairs", deadline_s=JUDGE_S, semantic=False, **BRIEF, **more
        )
    except _SILENT:
        return Answer(None)
    stored = reply.source == "cache"
    return Answer(
        yes=verdict(reply.text),
        stored=stored,
        seconds=(reply.saved_s if stored else reply.latency_s) or math.nan,
        usd=reply.saved_usd if stored else reply.cost_usd,
        tokens=(reply.usage.input_tokens, reply.usage.output_tokens),
        log_odds=log_odds(reply),
    )


def log_odds(reply: Reply) -> float:
    """Return log p(YES) - log p(NO) of an answer's first token.

    Any spelling of a word counts, and its beginning too, because a tokenizer may cut "YES" after the Y. A word that is not among
    the alternatives counts as likely as the last of them, which it is at most. NaN without log probabilities.
    """
    first: Mapping[str, Any] = reply.logprobs[0] if reply.logprobs else {}
    alternatives = [(str(one["token"]).strip().casefold(), math.exp(one["logprob"])) for one in first.get("top_logprobs") or ()]
    least = min((likely for _, likely in alternatives), default=0.0)
    yes, no = (max(least, sum(p for token, p in alternatives if token and word.startswith(token))) for word in ("yes", "no"))
    return math.log(yes / no) if least else math.nan


# ---------------------------------------------------------------------- telling


def said(answers: Sequence[Answer], same: Flags) -> list[str]:
    """Return in lines: agreement with the labels, answers that were none, and what an answer takes and costs."""
    clear = np.array([answer.yes is not None for answer in answers])
    lines = []
    if clear.any():
        found = judge_agreement(np.array([answer.yes is True for answer in answers])[clear], same[clear])
        kappa = "" if found.kappa is None else f" Cohen's kappa {found.kappa:.2f}."
        lines.append(f"{found}{kappa}")
    share, interval = rate(~clear)
    lines.append(f"{(~clear).sum():,} answers ({share:.1%}, {_to(interval)}) said neither yes nor no, which refuses.")
    seconds = np.array([answer.seconds for answer in answers])
    seconds = seconds[np.isfinite(seconds)]
    stored = sum(answer.stored for answer in answers)
    time = f"median {np.median(seconds):.2f} s, p95 {np.percentile(seconds, 95):.2f} s" if seconds.size else "time unknown"
    usd = [answer.usd for answer in answers if answer.usd is not None]
    cost = f"${sum(usd, Decimal()) / len(usd):.6f}" if usd else "cost unknown"
    tokens = [np.median([n for n in column if n is not None] or [0]) for column in zip(*(a.tokens for a in answers), strict=True)]
    counted = f"{tokens[0]:.0f} tokens in and {tokens[1]:.0f} out (medians)"
    lines.append(f"{len(answers) - stored:,} were asked, {stored:,} were stored. One question: {time}, {counted}, {cost}.")
    return lines


def let_through(ways: Mapping[str, Flags], score: Scores, same: Flags) -> list[str]:
    """Return a table of the shares of true and false pairs that pass, of all and of near ones."""
    near = score >= NEAR
    groups = (same, ~same, same & near, ~same & near)
    names = ("true pairs", "false pairs", f"true, cosine >= {NEAR}", f"false, cosine >= {NEAR}")
    table = [
        "| lets through | " + " | ".join(f"{name} ({group.sum():,})" for name, group in zip(names, groups, strict=True)) + " |"
    ]
    table.append("|---|" + "---|" * len(groups))
    for name, way in ways.items():
        cells = [f"{share:.1%} ({_to(interval)})" for share, interval in (rate(way[group]) for group in groups)]
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


@dataclass(frozen=True, eq=False)
class Way:
    """What may be served. asked: of which of them the judge is asked, None where there is none."""

    name: str
    kept: Flags
    asked: Flags | None = None


def hits(ways: Sequence[Way], base: Way, score: Scores, same: Flags) -> list[str]:
    """Return a table of hits at equal true error. The difference to `base`, one of the ways, is on the same resamples."""
    heads = "".join(f" at most {e:.0%} wrong: hits | beside guards | judgements | calibrated at 95% |" for e in ERRORS)
    cells: dict[str, list[str]] = {way.name: [] for way in ways}
    counts = resampled(len(same), seed=SEED)
    for most in ERRORS:
        draws = dict(zip(ways, spread(score, same, [way.kept for way in ways], most, counts).T, strict=True))
        plain = best(score, same, base.kept, most)[0]
        for way in ways:
            share, threshold = best(score, same, way.kept, most)
            beside = "" if way is base else f"{share - plain:+.1%} ({_to(middle(draws[way] - draws[base]), '+')})"
            asked = "none" if way.asked is None else f"{np.mean(way.asked & (score >= threshold)):.0%}"
            plan = shown(calibrated(score, same, way.kept, most))
            cells[way.name] += [f"{share:.1%} ({_to(middle(draws[way]))})", beside, asked, plan]
    return [
        f"| |{heads}",
        "|---|" + "---|---|---|---|" * len(ERRORS),
        *(f"| {name} | {' | '.join(row)} |" for name, row in cells.items()),
    ]


def _to(interval: Interval, sign: str = "") -> str:
    return " to ".join(format(end, f"{sign}.1%") for end in interval)


def by_log_odds(odds: Scores, score: Scores, same: Flags, passed: Flags) -> list[str]:
    """Return in lines how well the log odds of YES and the cosine order true pairs before false ones, and what the best cut gives.

    The cut is the best of nine in hindsight (its deciles), so these hits are more than anybody would get.
    """
    known = np.isfinite(odds)
    if not known.any():
        return ["The judge's server gave no log probabilities."]
    lines = ["| AUC (0.5 is chance) | all pairs | of those that pass the guards, cosine >= 0.9 |", "|---|---|---|"]
    near = known & passed & (score >= NEAR)
    for name, values in (("log odds of YES", odds), ("cosine", score)):
        lines.append(f"| {name} | {_auc(values[known], same[known])} | {_auc(values[near], same[near])} |")
    cuts = np.quantile(odds[known], np.arange(1, 10) / 10)
    for most in ERRORS:
        plain = best(score, same, passed, most)[0]
        found = max(best(score, same, passed & known & (odds >= cut), most)[0] for cut in cuts)
        lines.append(
            f"\nAt most {most:.0%} wrong: guards {plain:.1%} hits, with the best of nine cuts of the log odds {found:.1%}."
        )
    return lines


def _auc(values: Scores, same: Flags) -> str:
    """Return an AUC with its interval."""
    if same.all() or not same.any():
        return "-"
    draws = np.random.default_rng(SEED).integers(0, len(same), size=(1_000, len(same)))
    low, high = middle(np.array([found for draw in draws if not math.isnan(found := ranked(values[draw], same[draw]))]))
    return f"{ranked(values, same):.3f} ({low:.3f} to {high:.3f})"
