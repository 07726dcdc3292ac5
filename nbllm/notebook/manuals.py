"""What each magic takes and how it is explained: the one place where options, help and Tab completion are declared."""

from __future__ import annotations

from collections.abc import Mapping

from nbllm.notebook.serve_manual import SERVE
from nbllm.settings import reading
from nbllm.settings.flags import Flag, Manual
from nbllm.settings.llm_manual import LLM

PLOTS = ("latency", "ttft", "cost", "cache", "tokens", "timeline", "breakeven")
PANELS = ("semantic_cache", "latency", "routing")
GROUPS = ("model", "feature", "user", "day", "session", "source", "status", "total")
BUDGETS = ("request", "session", "day", "feature", "user")


MODEL = Flag(names=("-m", "--model"), dest="model", read=str, metavar="MODEL", completes="models",
             help="Only calls that this model answered; sim/* is all of an endpoint.")  # fmt: skip
FEATURE = Flag(names=("--feature",), dest="feature", read=str, metavar="NAME", help="Only calls for this feature.")
USER = Flag(names=("--user",), dest="user", read=str, metavar="NAME", help="Only calls for this user.")
SINCE = Flag(names=("--since",), dest="since", read=reading.since_s, metavar="TIME", completes=("10m", "1h", "today", "7d", "all"),
             help="Only calls since then: 10m, 2h, 7d, today (UTC) or all.")  # fmt: skip
ALL = Flag(names=("--all",), dest="all", help="Calls of all sessions, not only of this one.")
LIMIT = Flag(names=("-n", "--limit"), dest="limit", read=reading.count, metavar="N", help="At most so many rows (default 20).")

BREAKEVEN = (
    Flag(names=("--usd-per-hour",), dest="usd_per_hour", read=reading.usd, metavar="USD",
         help="breakeven: what your machine costs an hour, if %serve start was not told."),
    Flag(names=("--tok-s",), dest="tokens_per_s", read=reading.positive, metavar="N",
         help="breakeven: tokens a second that it writes, if not as measured."),
    Flag(names=("--use",), dest="use", read=reading.share, metavar="SHARE", completes=("25%", "50%", "100%"),
         help="breakeven: share of the day at that pace (100%)."),
    Flag(names=("--api",), dest="api", read=str, metavar="MODEL", completes="models",
         help="breakeven: compare with this model's list price, not with what was billed."),
    Flag(names=("--engine",), dest="engine", read=str, metavar="NAME", help="breakeven: which server of %serve, if several run."),
)  # fmt: skip
"""Flags of one kind of plot."""

CONFIG = Manual(
    name="%llm_config",
    summary="Show every setting and where its value came from, or set some for this session.",
    usage=("%llm_config", "%llm_config KEY=VALUE ...", "%llm_config --reset [KEY ...]"),
    examples="""
        %llm_config                                   # what is set, and by what
        %llm_config model=sim/small deadline_s=30
        %llm_config ladder=lab/qwen,openai/gpt-4o-mini
        %llm_config --reset deadline_s                # as it was before %llm_config
        %llm_config --reset                           # all of them
    """,
    flags=(Flag(names=("--reset",), dest="reset", help="Forget what %llm_config set in this session: these settings, or all."),),
    more="""
        Later wins: defaults, nbllm.toml or [tool.nbllm] in pyproject.toml, NBLLM_*
        variables, %llm_config, options of the call.
    """,
    words="settings",
)
MODELS = Manual(
    name="%llm_models",
    summary="List the models that can be asked from here, with prices and context windows.",
    usage=("%llm_models [PROVIDER | TEXT]",),
    examples="""
        %llm_models              # what can be asked now; which key each provider needs
        %llm_models openai       # all models of a provider, its key set or not
        %llm_models mini         # those with "mini" in their name
    """,
    words="models and providers",
)
USAGE = Manual(
    name="%llm_usage",
    summary="Calls, tokens, cost and savings of this session, summed up.",
    usage=("%llm_usage [GROUP] [options]",),
    examples="""
        %llm_usage                     # by model
        %llm_usage feature --since today --all
    """,
    flags=(MODEL, FEATURE, USER, SINCE, ALL),
    more=f"GROUP is one of {', '.join(GROUPS)}.",
    words=GROUPS,
)
PLOT = Manual(
    name="%llm_plot",
    summary="Plot this session's calls.",
    usage=("%llm_plot KIND [options]",),
    examples="""
        %llm_plot latency                        # ECDF with P50, P95, P99
        %llm_plot cost --feature summaries --since today
        %llm_plot timeline --all --save calls.png
        %llm_plot breakeven --usd-per-hour 1.20 --tok-s 900 --all
    """,
    flags=(
        MODEL, FEATURE, SINCE, ALL, *BREAKEVEN,
        Flag(names=("--save",), dest="save", read=str, metavar="FILE", completes="files",
             help="Write it to a file too: .png, .svg or .pdf."),
    ),
    more="""
        latency, ttft    how long answers and first tokens took, as ECDF: the share
                         of calls that were at most so slow. Model calls and cache
                         hits are kept apart. No P99 from fewer than 100 calls.
        cost, cache      dollars over time; hits, and what they saved
        tokens           tokens in and out, by model
        timeline         each call at its time
        breakeven        from how many tokens a day a machine of your own is
                         cheaper than the API, for the mix of these calls
        The same are functions that take and return matplotlib Axes:
        from nbllm.notebook.plots import latency
    """,
    words=PLOTS,
)  # fmt: skip
CALLS = Manual(
    name="%llm_calls",
    summary="List the calls of this session, show one in detail, or forget recorded texts.",
    usage=("%llm_calls [options]", "%llm_calls ID", "%llm_calls forget ID | --all"),
    examples="""
        %llm_calls -n 50
        %llm_calls 3f2a        # one call: its attempts, prompt and answer
        %llm_calls $answer.call_id
        %llm_calls forget 3f2a # delete its recorded texts; its numbers stay
    """,
    flags=(LIMIT, MODEL, FEATURE, USER, SINCE, ALL),
    words=("forget",),
)
CACHE = Manual(
    name="%llm_cache",
    summary="Show the answer cache, or purge some of it.",
    usage=("%llm_cache [-n N]", "%llm_cache purge --tag T | --model M | --older-than TIME | --key K | --all"),
    examples="""
        %llm_cache
        %llm_cache purge --model sim/small
        %llm_cache purge --older-than 7d
    """,
    flags=(
        Flag(names=("--tag",), dest="tag", read=str, metavar="TAG", help="Entries with this tag."),
        Flag(names=("--model",), dest="model", read=str, metavar="MODEL", completes="models", help="Entries of this model."),
        Flag(names=("--older-than",), dest="older_than_s", read=reading.duration_s, metavar="TIME",
             help="Entries older than that: 1h, 7d."),
        Flag(names=("--key",), dest="key_prefix", read=str, metavar="KEY", help="The entry whose key begins so."),
        Flag(names=("--all",), dest="all", help="All entries."),
        LIMIT,
    ),
    words=("purge",),
)  # fmt: skip
BUDGET = Manual(
    name="%llm_budget",
    summary="Show budgets, or set one.",
    usage=("%llm_budget", "%llm_budget KIND [NAME] AMOUNT | off [--soft 80%]"),
    examples="""
        %llm_budget
        %llm_budget session 5.00 --soft 80%     # warn at $4, stop at $5
        %llm_budget feature summaries 1.00
        %llm_budget request 0.05                # each single call
        %llm_budget session off
    """,
    flags=(
        Flag(names=("--soft",), dest="soft", read=reading.amount_or_share, metavar="SHARE|USD", completes=("50%", "80%", "90%"),
             help="Warn once at this share (default 80%), for all budgets."),
    ),
    more=f"KIND is {', '.join(BUDGETS[:-1])} or {BUDGETS[-1]}; the last two take a NAME.\n"
    "Days are UTC. Nothing is sent that could go over a budget.",
    words=BUDGETS,
)  # fmt: skip

PANEL = Manual(
    name="%llm_panel",
    summary="Move a slider and see what a setting costs and saves, before it is set.",
    usage=("%llm_panel semantic_cache [options]", "%llm_panel latency", "%llm_panel routing [ROUTE | PLAN]"),
    examples="""
        %llm_panel semantic_cache       # how similar must questions be?
        %llm_panel semantic_cache --max-error 2%
        %llm_panel latency              # deadline and first-token limit
        %llm_panel routing cheap        # a learned route of the settings
        %llm_panel routing plan         # a variable, from calibrate_route
    """,
    flags=(
        Flag(names=("--max-error",), dest="max_error", read=reading.share, metavar="SHARE", completes=("1%", "2%", "5%", "10%"),
             help="semantic_cache: share of hits that may be wrong (default 5%)."),
        Flag(names=("--confidence",), dest="confidence", read=reading.share, metavar="SHARE", completes=("90%", "95%", "99%"),
             help="semantic_cache: how sure the bound has to be (default 95%)."),
    ),
    more="""
        semantic_cache  hit rate, upper bound of wrong hits, dollars saved; below
                        it matches to label. Labels that are new since the last
                        look are calibrated on, which spends some confidence.
        latency         what share of this session's calls would have run into a
                        deadline or a first-token limit
        routing         cost, P95 and quality at a share of strong calls
        Apply writes the setting into nbllm.toml, or [tool.nbllm] of
        pyproject.toml, and uses it from then on in this session; it shows what
        it wrote. Without widgets the panel is a picture with its numbers.
    """,
    words=PANELS,
)  # fmt: skip
WHY = Manual(
    name="%llm_why",
    summary="Say why an answer came from where it came, and mark it as wrong if it was.",
    usage=("%llm_why [ANSWER | CALL_ID]",),
    examples="""
        %llm_why answer        # a variable that holds a Reply
        %llm_why 3f2a          # a call of %llm_calls
        %llm_why               # the last answer
    """,
    more="""
        Shows rung, route and its reason, what it cost; for a match by similarity the
        question that was matched, how near it was, what each guard said, and the
        bound in force. nbllm.mark(answer) marks it as wrong in code.
    """,
    words="names",
)
LABEL = Manual(
    name="%llm_label",
    summary="Label what the semantic cache met: was the stored answer right as well?",
    usage=("%llm_label [-n N]",),
    examples="""
        %llm_label             # ten, one key each: y right, n wrong, s skip, q stop
        %llm_label -n 50
    """,
    flags=(
        Flag(names=("-n", "--limit"), dest="limit", read=reading.count, metavar="N", help="At most so many (default 10)."),
    ),
    more="""
        They come in random order, so that those you label speak for all. Skip only
        what you cannot tell: leaving out the hard ones would flatter the result.
    """,
)  # fmt: skip

MANUALS: Mapping[str, Manual] = {
    "llm": LLM, "nbllm": LLM, "llm_config": CONFIG, "llm_models": MODELS, "llm_usage": USAGE, "llm_plot": PLOT, "llm_calls": CALLS,
    "llm_cache": CACHE, "llm_budget": BUDGET, "llm_panel": PANEL, "llm_why": WHY, "llm_label": LABEL, "serve": SERVE,
}  # fmt: skip
