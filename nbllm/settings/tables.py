"""What can be set: the two tables that settings files, NBLLM_*, %llm_config, the magics and the keywords of `ask` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.errors import InvalidRequest
from nbllm.settings.option import BadValue, Option
from nbllm.settings.semantic import SEMANTIC
from nbllm.settings.suggest import did_you_mean

WEEK_S = 7 * 24 * 3600.0
"""Upper bound of every wait: timers of selectors and of other libraries overflow far above it."""


def _table(*options: Option) -> Mapping[str, Option]:
    return {option.name: option for option in options}


CALL_OPTIONS: Mapping[str, Option] = _table(
    Option(name="model", kind="texts", default=None, in_settings=False, is_name=True,
           help="Model id, route, or a list of model ids; without it the client's ladder answers."),
    Option(name="system", kind="text", default=None, help="System prompt."),
    Option(name="temperature", kind="number", default=None, at_least=0, help="Sampling temperature; not sent unless given."),
    Option(name="max_tokens", kind="integer", default=None, at_least=1, help="Most tokens that the answer may have."),
    Option(name="top_p", kind="number", default=None, above=0, at_most=1, help="Nucleus sampling: share of probability kept."),
    Option(name="seed", kind="integer", default=None, help="Seed for models that honour one."),
    Option(name="stop", kind="texts", default=None, help="Text or texts that end the answer."),
    Option(name="tools", kind="mappings", default=None, in_settings=False, help="Tools in OpenAI's shape."),
    Option(name="response_format", kind="mapping", default=None, in_settings=False, help="Response format in OpenAI's shape."),
    Option(name="logprobs", kind="logprobs", default=None, at_least=0, at_most=20,
           help="True: log probabilities of the answer's tokens; a number: of that many alternatives too."),
    Option(name="extra", kind="mapping", default={}, optional=False, help="Further fields of the request body, sent as they are."),
    Option(name="schema", kind="code", default=None, in_settings=False,
           help="pydantic model, dataclass, TypedDict or JSON Schema that the answer must fit; fills reply.data."),
    Option(name="check", kind="code", default=None, in_settings=False,
           help="Function of reply.data (or text) that raises or returns False when the answer will not do."),
    Option(name="repairs", kind="integer", default=2, at_least=0, at_most=20, optional=False,
           help="How often an answer that fails schema or check is asked for again."),
    Option(name="retries", kind="integer", default=2, at_least=0, at_most=20, optional=False,
           help="How often a failed attempt is sent again to the same endpoint."),
    Option(name="cache", kind="choice", default="use", choices=("use", "refresh", "off"), optional=False,
           help="use: answer from the cache where possible; refresh: ask anew and store; off: neither read nor store."),
    Option(name="ttl_s", kind="number", default=None, above=0,
           help="How long the stored answer is fresh, in seconds; None: until its maximum age."),
    Option(name="stale_ok_s", kind="number", default=None, above=0,
           help="When every rung failed, a stored answer that expired up to this many seconds ago will do."),
    Option(name="static", kind="text", default=None, help="Text to return when everything else failed."),
    Option(name="sample", kind="integer", default=0, at_least=0, optional=False,
           help="Number of the sample: another number is another answer to the same prompt in the cache."),
    Option(name="partition", kind="text", default="", optional=False, help="Part of the cache that this call sees and fills."),
    Option(name="deadline_s", kind="number", default=300.0, above=0, at_most=WEEK_S, optional=False,
           help="Longest time for everything: waiting, retries, fallbacks, repairs; in seconds."),
    Option(name="ttft_s", kind="number", default=60.0, above=0, at_most=WEEK_S,
           help="Longest wait for the first token of a stream, in seconds."),
    Option(name="idle_s", kind="number", default=60.0, above=0, at_most=WEEK_S,
           help="Longest silence within a stream, in seconds."),
    Option(name="attempt_s", kind="number", default=None, above=0, at_most=WEEK_S,
           help="Longest time for one attempt at a whole answer, in seconds; None: its share of the deadline."),
    Option(name="on_interrupt", kind="choice", default=None, choices=("restart", "raise"),
           help="What to do when a stream breaks: restart, or raise with what came; None: restart for ask, raise for stream."),
    Option(name="feature", kind="text", default=None, is_name=True,
           help="What the call is for; usage and budgets can be kept by feature."),
    Option(name="user", kind="text", default=None, is_name=True,
           help="Whom the call is for; usage and budgets can be kept by user."),
    Option(name="budget_usd", kind="money", default=None, in_settings=False,
           help="Most that this call may cost, in USD (as a setting: budget.request_usd)."),
    Option(name="semantic", kind="flag", default=None, in_settings=False,
           help="False: neither take a similar question's answer nor offer this one; None: as semantic_cache says."),
    Option(name="tags", kind="texts", default=(), optional=False, is_name=True,
           help="Tags of the stored answer, for %llm_cache purge --tag."),
)  # fmt: skip
"""Keyword options of Client.ask and its twins, with their defaults."""

SETTINGS: Mapping[str, Option] = _table(
    Option(name="home", kind="text", default=None,
           help="Folder that holds cache, ledger and recordings (default: the user's data folder)."),
    Option(name="session", kind="text", default=None, is_name=True,
           help="Name of the session; one process is one session unless it is named."),
    Option(name="model", kind="text", default=None, is_name=True,
           help="Default model id or route; None: the ladder, else what is found."),
    Option(name="ladder", kind="texts", default=(), optional=False, is_name=True,
           help="Model ids to try in order until one answers."),
    Option(name="discover", kind="flag", default=True, optional=False,
           help="Look for a local server or a key when no model is configured."),
    Option(name="budget.request_usd", kind="money", default=None, help="Most that one call may cost, in USD."),
    Option(name="budget.session_usd", kind="money", default=None, help="Most that one session may cost, in USD."),
    Option(name="budget.day_usd", kind="money", default=None, help="Most that one day (UTC) may cost, in USD."),
    Option(name="budget.soft", kind="share", default=0.8, above=0, at_most=1, optional=False,
           help="Share of a budget at which one warning is shown."),
    Option(name="cache_size_mb", kind="number", default=1024, above=0, at_most=10**7, optional=False,
           help="Size limit of the answer cache, in MB."),
    Option(name="cache_max_age_days", kind="number", default=90, above=0, at_most=36500, optional=False,
           help="Absolute maximum age of a stored answer, in days, whatever its ttl_s."),
    Option(name="recordings", kind="flag", default=False, optional=False,
           help="Keep prompts and answers (redacted) in the home; on in notebooks."),
    Option(name="recordings_days", kind="number", default=30, above=0, at_most=36500, optional=False,
           help="How long recordings are kept, in days."),
    Option(name="recordings_mb", kind="number", default=500, above=0, at_most=10**7, optional=False,
           help="Size limit of recordings, in MB."),
    Option(name="retry_budget_share", kind="share", default=0.2, at_least=0, at_most=1, optional=False,
           help="Retries an endpoint may have, as a share of its recent attempts."),
    Option(name="retry_budget_floor", kind="integer", default=3, at_least=0, at_most=1000, optional=False,
           help="Retries an endpoint may have in any case."),
    *SEMANTIC,
)  # fmt: skip
"""Settings besides the call options; endpoints, routes and budgets per feature or user are tables of their own in a file."""

SETTABLE: Mapping[str, Option] = {**SETTINGS, **{n: o for n, o in CALL_OPTIONS.items() if o.in_settings}}


def check_call_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a call in their normal form.

    Raises InvalidRequest for an unknown name (with the nearest known one) and for a bad value.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        option = CALL_OPTIONS.get(name)
        if option is None:
            raise InvalidRequest(f"There is no option {name!r}.", hint=did_you_mean(name, CALL_OPTIONS, limit=50))
        try:
            checked[name] = option.value(value)
        except BadValue as error:
            raise InvalidRequest(f"{error.problem}.", hint=error.hint or option.help) from None
    return checked
