"""What keys look like: prefixes that providers give their keys, and names that stand before a key. Data for the redactor."""

from __future__ import annotations

from collections.abc import Mapping

WORD = r"[A-Za-z0-9_-]"
_DIGIT_SOON = r"(?=[A-Za-z_-]{0,40}[0-9])"


def _tail(least: int, *, digit: bool = False) -> str:
    return (_DIGIT_SOON if digit else "") + f"{WORD}{{{least},}}"


DISTINCT: Mapping[str, str] = {
    # OpenAI and those who copied its shape
    "sk-proj-": _tail(10), "sk-svcacct-": _tail(10), "sk-admin-": _tail(10), "sk-ant-": _tail(8), "sk-or-v1-": _tail(8),
    "sk-lf-": _tail(8), "pk-lf-": _tail(8), "sk-helicone-": _tail(6), "pk-helicone-": _tail(6),
    # Models elsewhere
    "nvapi-": _tail(10), "pplx-": _tail(16, digit=True), "tgp_v1_": _tail(10), "esecret_": _tail(10),
    "jina_": _tail(20, digit=True),
    "tvly-": _tail(10, digit=True), "pcsk_": _tail(10), "lsv2_": _tail(16), "ABSK": r"[A-Za-z0-9+/]{40,}={0,2}",
    "bedrock-api-key-": r"[A-Za-z0-9+/=_-]{16,}", "GOCSPX-": _tail(10), "ya29.": _tail(16), "vck_": _tail(16, digit=True),
    "api_org_": r"[A-Za-z0-9]{20,}", "sess-": r"[A-Za-z0-9]{32,}", "flp_": r"[A-Za-z0-9]{20,}",
    # Code hosts and packages
    "github_pat_": _tail(16), "glpat-": _tail(12), "gldt-": _tail(12), "glrt-": _tail(12), "dckr_pat_": _tail(12),
    "dckr_oat_": _tail(12),
    "rubygems_": r"[a-f0-9]{32,}", "pypi-AgE": _tail(16), "ATATT3": r"[A-Za-z0-9_=-]{20,}", "figd_": _tail(16),
    "lin_api_": _tail(16),
    # Clouds, payment, messages, monitoring
    "dop_v1_": _tail(16), "doo_v1_": _tail(16), "dapi": r"[a-f0-9]{32}(?:-\d)?", "shpat_": _tail(16), "sq0atp-": _tail(16),
    "sq0csp-": _tail(16), "sk_live_": _tail(10), "sk_test_": _tail(10), "rk_live_": _tail(10), "rk_test_": _tail(10),
    "whsec_": r"[A-Za-z0-9+/=]{16,}", "xapp-": _tail(12), "hooks.slack.com/services/": r"[A-Za-z0-9/_-]{16,}",
    "hooks.slack.com%2Fservices%2F": r"[A-Za-z0-9%_-]{16,}",
    "discord.com/api/webhooks/": r"[A-Za-z0-9/_-]{16,}",
    "discord.com%2Fapi%2Fwebhooks%2F": r"[A-Za-z0-9%_-]{16,}",
    "HRKU-": _tail(16), "glc_": r"[A-Za-z0-9+/=]{24,}", "glsa_": _tail(16),
    "NRAK-": _tail(16), "sntrys_": r"[A-Za-z0-9+/=_-]{20,}", "hvs.": _tail(20), "atlasv1.": _tail(20), "sbp_": r"[a-f0-9]{32,}",
    "pscale_tkn_": _tail(16), "pscale_pw_": _tail(16), "PMAK-": _tail(20), "AGE-SECRET-KEY-1": r"[A-Z0-9]{20,}",
    "dt0c01.": r"[A-Z0-9.]{20,}",
    "ntn_": r"[A-Za-z0-9]{20,}", "nfp_": r"[A-Za-z0-9]{20,}",
}  # fmt: skip
"""Prefix -> what follows it; nothing else begins like that, so whatever stands before does not matter."""

SHORT: Mapping[str, str] = {
    "sk-": rf"(?:{_DIGIT_SOON}{WORD}{{8,}}|{WORD}{{24,}})", "sk_": r"(?=[A-Za-z]{0,20}[0-9])[A-Za-z0-9]{20,}", "AIza": _tail(30),
    "AKIA": r"[A-Z0-9]{12,}", "ASIA": r"[A-Z0-9]{16,}", "AROA": r"[A-Z0-9]{16,}", "ghp_": r"[A-Za-z0-9]{16,}",
    "gho_": r"[A-Za-z0-9]{16,}", "ghu_": r"[A-Za-z0-9]{16,}", "ghs_": r"[A-Za-z0-9]{16,}", "ghr_": r"[A-Za-z0-9]{16,}",
    "hf_": r"[A-Za-z0-9]{16,}", "gsk_": r"[A-Za-z0-9]{16,}", "xai-": _tail(16, digit=True), "r8_": r"[A-Za-z0-9]{16,}",
    "csk-": _tail(16, digit=True), "fw_": r"(?=[A-Za-z]{0,20}[0-9])[A-Za-z0-9]{16,}",
    "pa-": r"(?=[A-Za-z_-]{0,20}[0-9])[A-Za-z0-9_-]{30,}",
    "ak-": r"(?=[A-Za-z]{0,20}[0-9])[A-Za-z0-9]{20,}", "as-": r"(?=[A-Za-z]{0,20}[0-9])[A-Za-z0-9]{20,}",
    "xoxb-": _tail(10), "xoxp-": _tail(10), "xoxa-": _tail(10), "xoxr-": _tail(10), "xoxs-": _tail(10),
    "xoxe": r"[A-Za-z0-9.-]{20,}",
    "npm_": r"[A-Za-z0-9]{30,}", "SG.": r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", "key-": r"[a-f0-9]{32}", "SK": r"[a-f0-9]{32}",
    "secret_": r"[A-Za-z0-9]{40,}", "dp.": r"(?:pt|st|sa|ct)\.[A-Za-z0-9._-]{30,}", "sk.eyJ": r"[A-Za-z0-9_.-]{20,}",
    "eyJ": r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*", "EAAA": r"[A-Za-z0-9_-]{50,}",
    "ops_eyJ": r"[A-Za-z0-9_-]{40,}",
}  # fmt: skip
"""Prefix -> what follows it, where the prefix alone is common: it must not stand inside a word."""

STRONG_NAMES = (
    "api_key", "api-key", "apikey", "api key", "api_token", "api-token", "apitoken", "access_key", "access-key", "accesskey",
    "account_key", "accountkey", "secret_key", "secret-key", "secretkey", "secret_access_key", "client_secret", "client-secret",
    "clientsecret", "subscription-key", "subscription_key", "access_token", "access-token", "accesstoken", "auth_token",
    "auth-token",
    "authtoken", "refresh_token", "refresh-token", "id_token", "session_token", "session-token", "bearer_token", "private_key",
    "privatekey", "signing_key", "encryption_key", "master_key", "license_key", "service_key", "authorization",
)  # fmt: skip
"""Names of fields, headers, variables and query parameters (in lower case) whose value is a secret."""

PASSWORD_NAMES = ("password", "passwd", "passphrase", "pwd")
WEAK_NAMES = ("token", "secret", "_key", "-key", "?key", "&key", "?sig", "&sig", "signature", "credential", "credentials", "_pat")
"""Names that mean other things as well: their value is masked only when it looks like a key."""

NO_SECRETS = (
    "cache_key",
    "primary_key",
    "foreign_key",
    "public_key",
    "sort_key",
    "idempotency_key",
    "idempotency-key",
    "partition_key",
)
"""Names that end like one of these and hold no secret."""

PLACEHOLDERS = frozenset(
    ("none", "null", "true", "false", "undefined", "required", "optional", "missing", "invalid", "empty", "not-needed", "lm-studio",
     "ollama", "dummy", "placeholder", "string", "redacted", "***", "...", "sk-no-key-required")
)  # fmt: skip
"""Values that stand where a key would and are none; they are never masked and cannot be registered."""
