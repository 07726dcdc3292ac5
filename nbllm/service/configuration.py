"""ServiceSettings: what the table [service] of an app's settings.toml may say, checked, with file and line for what is wrong.

The file holds nbllm's settings, as nbllm.toml does, and beside them [service] and a table [service.tiers.NAME] for each kind of
key; "default" is there in any case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from nbllm.errors import SettingsFileError
from nbllm.settings import Option, Settings
from nbllm.settings.load import load_file
from nbllm.settings.option import BadValue, shown
from nbllm.settings.suggest import did_you_mean
from nbllm.settings.tables import WEEK_S
from nbllm.settings.toml_lines import line_of

TABLE = "service"
HOSTS_VARIABLE = "NBLLM_SERVICE_ALLOWED_HOSTS"
"""Names to add to allowed_hosts, with commas between them: what only the place knows where an app runs (a pod's address)."""
DEFAULT_TIER = "default"
UNLIMITED_TIER = "unlimited"
"""Built in, like the default one: nothing a minute is limited. For load tests, and callers whom one trusts."""
NO_LIMIT = "none"
"""How a tier says that something is not limited: TOML has no null."""
_TIER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_LOOPBACK = frozenset({"localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """What a key may do. None: not limited.

    requests_per_minute, tokens_per_minute: sliding over one minute. streams: answers that come piece by piece, at once. day_usd:
    what the key's calls may cost in one day (UTC). priority: when the service is full, who has more goes first.
    """

    name: str = DEFAULT_TIER
    requests_per_minute: int | None = 600
    tokens_per_minute: int | None = None
    streams: int | None = 20
    day_usd: Decimal | None = None
    priority: int = 0


_BUILT_IN: Mapping[str, Tier] = {
    DEFAULT_TIER: Tier(),
    UNLIMITED_TIER: Tier(name=UNLIMITED_TIER, requests_per_minute=None, streams=None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How an app is served. Lengths of time are in seconds (_s).

    allowed_hosts: names that a request may call this service by, besides the loopback's; "*.example.org" for all below one.
    allowed_origins: web pages ("https://app.example.org") whose scripts may call it. docs: whether /docs is there; None: only for
    callers on this machine. max_body_bytes, max_depth: of a request's JSON. max_running, max_waiting, queue_wait_s: requests that
    run at once, that wait for their turn, and how long. idle_s: how long a connection may be silent, and how long a client may
    leave an answer unread. header_timeout_s: how long headers, and each piece of a body, may take to come. max_connections: at
    once. grace_s: how long requests may go on after SIGTERM. models: what /v1 may name besides the models and routes of nbllm's own
    settings; "vllm/*" is all of an endpoint. cache_partition: who shares stored answers on /v1: each "key" has its
    own, or the "app" one. flow_partition: the part of the cache that flows use. keys_file: where the keys are, "" for
    service-keys.json in the home. metrics_port: /metrics on a port of its own on the loopback; None: on the service's, behind a
    key. on_state_loss: what requests get while limits cannot be counted. log_prompts: whether what is asked is logged (redacted).
    """

    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    docs: bool | None = None
    max_body_bytes: int = 1_000_000
    max_depth: int = 64
    max_running: int = 64
    max_waiting: int = 256
    max_connections: int = 2000
    queue_wait_s: float = 10.0
    flow_timeout_s: float = 300.0
    idle_s: float = 75.0
    header_timeout_s: float = 10.0
    grace_s: float = 20.0
    models: tuple[str, ...] = ()
    cache_partition: Literal["key", "app"] = "key"
    flow_partition: str = ""
    keys_file: str = ""
    job_keep_s: float = 86_400.0
    idempotency_keep_s: float = 86_400.0
    webhook_hosts: tuple[str, ...] = ()
    metrics_port: int | None = None
    on_state_loss: Literal["refuse", "allow"] = "refuse"
    log_prompts: bool = False
    tiers: Mapping[str, Tier] = field(default_factory=lambda: dict(_BUILT_IN), hash=False)

    @property
    def public(self) -> bool:
        """Whether others than this machine can reach the address."""
        return not is_loopback(self.host)

    def tier(self, name: str) -> Tier | None:
        """Return a tier; None for one that is not in the settings any more: nobody knows what its keys may spend."""
        return self.tiers.get(name)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    return host in _LOOPBACK or host.startswith(("127.", "::ffff:127."))


def _options(*options: Option) -> Mapping[str, Option]:
    return {option.name: option for option in options}


def _count(name: str, meaning: str, *, at_least: int = 1, at_most: int = 10**9, optional: bool = False) -> Option:
    return Option(name=name, kind="integer", default=None, at_least=at_least, at_most=at_most, optional=optional, help=meaning)


def _time(name: str, meaning: str, *, at_most: float = WEEK_S) -> Option:
    return Option(name=name, kind="number", default=None, above=0, at_most=at_most, optional=False, help=meaning)


_KEEP_S = 366 * 86_400.0
SERVICE_OPTIONS = _options(
    Option(name="host", kind="text", default=None, optional=False, is_name=True, help="Address to listen on."),
    _count("port", "Port to listen on; 0 for a free one.", at_least=0, at_most=65_535),
    Option(name="allowed_hosts", kind="texts", default=(), optional=False, is_name=True, help="Names this service is called by."),
    Option(name="allowed_origins", kind="texts", default=(), optional=False, is_name=True, help="Web pages that may call it."),
    Option(name="docs", kind="flag", default=None, help="Whether /docs is there."),
    _count("max_body_bytes", "Largest body of a request.", at_most=100_000_000),
    _count("max_depth", "Deepest nesting of a body's JSON.", at_most=500),
    _count("max_running", "Requests that run at once.", at_most=100_000),
    _count("max_waiting", "Requests that wait for their turn.", at_least=0, at_most=100_000),
    _count("max_connections", "Connections at once.", at_most=1_000_000),
    _time("queue_wait_s", "Longest wait for a turn."),
    _time("flow_timeout_s", "Longest time of a flow."),
    _time("idle_s", "Longest silence of a connection."),
    _time("header_timeout_s", "Longest time for headers, and for each piece of a body."),
    _time("grace_s", "How long requests may go on after SIGTERM."),
    Option(name="models", kind="texts", default=(), optional=False, is_name=True, help="Further models that /v1 may name."),
    Option(name="cache_partition", kind="choice", default="key", choices=("key", "app"), optional=False, help="Who shares on /v1."),
    Option(name="flow_partition", kind="text", default="", optional=False, help="Part of the cache that flows use."),
    Option(name="keys_file", kind="text", default="", optional=False, help="File of the keys."),
    _time("job_keep_s", "How long a job's result is kept.", at_most=_KEEP_S),
    _time("idempotency_keep_s", "How long an answer is kept for its Idempotency-Key.", at_most=_KEEP_S),
    Option(name="webhook_hosts", kind="texts", default=(), optional=False, is_name=True, help="Hosts that webhooks may go to."),
    _count("metrics_port", "Port of /metrics on the loopback; 0 for a free one.", at_least=0, at_most=65_535, optional=True),
    Option(
        name="on_state_loss",
        kind="choice",
        default="refuse",
        choices=("refuse", "allow"),
        optional=False,
        help="While nothing counts.",
    ),
    Option(name="log_prompts", kind="flag", default=False, optional=False, help="Whether what is asked is logged."),
)
TIER_OPTIONS = _options(
    _count("requests_per_minute", "Requests a minute.", optional=True),
    _count("tokens_per_minute", "Tokens a minute.", optional=True),
    _count("streams", "Streams at once.", optional=True),
    Option(name="day_usd", kind="money", default=None, help="What a key may spend a day, in USD."),
    _count("priority", "Who goes first when the service is full.", at_least=-1000, at_most=1000),
)


def load_service(path: Path, environ: Mapping[str, str] | None = None) -> tuple[Settings, ServiceSettings]:
    """Return the settings of an app's file, and those of its table [service].

    The home is NBLLM_HOME, else what the file says, else .state beside the file. Raises SettingsFileError (file and line),
    ConfigurationError for a bad variable.
    """
    path = Path(path)
    settings, others, text = load_file(path, environ, besides=(TABLE,))
    if settings.origin("home") == "default":
        settings = settings.replace_values(path.name, home=path.absolute().parent / ".state")
    try:
        config = service_settings(others.get(TABLE, {}))
    except BadValue as error:
        where = ".".join((TABLE, *error.path))
        line = line_of(text, (TABLE, *error.path))
        raise SettingsFileError(error.at(where), path=str(path), line=line, hint=error.hint) from None
    named = (os.environ if environ is None else environ).get(HOSTS_VARIABLE, "")
    if hosts := tuple(host.strip() for host in named.split(",") if host.strip()):
        config = replace(config, allowed_hosts=(*config.allowed_hosts, *hosts))
    if config.keys_file:
        config = replace(config, keys_file=str(path.absolute().parent / Path(config.keys_file).expanduser()))
    return settings, config


def service_settings(table: Any) -> ServiceSettings:
    """Return the settings of a table; raises BadValue whose path leads to the culprit."""
    given = _mapping(table, ())
    tiers = _mapping(given.pop("tiers", {}), ("tiers",))
    values = _checked(given, SERVICE_OPTIONS, (), more=("tiers",))
    for number, origin in enumerate(values.get("allowed_origins", ())):
        if not re.fullmatch(r"https?://[^/\s*]+", origin):
            raise BadValue(
                f"allowed_origins[{number}] must be scheme and host of a web page, not {shown(origin)}",
                hint='For example "https://app.example.org", without a path.',
                path=("allowed_origins",),
            )
    made = dict(_BUILT_IN) | {name: _tier(name, tier) for name, tier in tiers.items()}
    return ServiceSettings(**values, tiers=made)


def _tier(name: str, table: Any) -> Tier:
    if not _TIER_NAME.match(name):
        raise BadValue(
            f"{shown(name)} cannot name a tier", hint="Use small letters, digits, - and _, 32 at most.", path=("tiers", name)
        )
    given = _mapping(table, ("tiers", name))
    unlimited = {
        limit for limit, value in given.items() if value == NO_LIMIT and limit in TIER_OPTIONS and TIER_OPTIONS[limit].optional
    }
    checked = _checked({limit: value for limit, value in given.items() if limit not in unlimited}, TIER_OPTIONS, ("tiers", name))
    values: dict[str, Any] = {**checked, **dict.fromkeys(unlimited)}
    return Tier(name=name, **values)


def _mapping(value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadValue(f"{'.'.join((TABLE, *path))} must be a table, not {shown(value)}", path=path)
    return dict(value)


def _checked(
    table: Mapping[str, Any], options: Mapping[str, Option], path: tuple[str, ...], *, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    checked = {}
    for name, given in table.items():
        if name not in options:
            known = (*options, *more)
            raise BadValue(f"there is no setting {name!r} here", hint=did_you_mean(name, known, limit=30), path=(*path, name))
        try:
            checked[name] = options[name].value(given)
        except BadValue as error:
            raise BadValue(error.problem, hint=error.hint, path=(*path, name)) from None
    return checked
