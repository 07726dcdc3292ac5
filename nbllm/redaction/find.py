"""Where the secrets in a text are. Triggers are looked for with str.find, which is fast; patterns run only where one stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from nbllm.redaction.shapes import DISTINCT, NO_SECRETS, PASSWORD_NAMES, PLACEHOLDERS, SHORT, STRONG_NAMES, WEAK_NAMES

Span = tuple[int, int]
_MASK = "[redacted]"
_MAX_QUOTED = 4000
_MAX_PEM = 20_000
_DECIDE_ON = 256
_NAMES = ((STRONG_NAMES, "strong"), (PASSWORD_NAMES, "password"), (WEAK_NAMES, "weak"))

_ESCAPE_BEFORE = re.compile(r"(?:%(?:25)?[0-9A-Fa-f]{2}|\\[nrtbf0]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\x1b\[[0-9;]{0,12}m)\Z")
_SEPARATOR = re.compile(
    r"""(?P<close>\\*["'`]|%22|&quot;|&\#3[49];|\\u0022)?\s{0,4}
        (?:=>|:=|==|=|:|%3[AaDd]|(?(close),|(?!)))\s{0,4}
        (?:[bB]?(?P<quote>\\*["'`]|%22|&quot;|&\#3[49];|\\u0022))?
        (?:(?:bearer|basic|token|apikey|api-key|digest)(?:[ \t+]+|%20))?""",
    re.VERBOSE | re.IGNORECASE,
)
_BARE = re.compile(r"""[^\s"'`,;&<>()\[\]{}|\\]{1,256}""")
_BARE_REST = re.compile(r"""[^\s"'`,;&<>()\[\]{}|\\]*""")
_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")
_BEARER = re.compile(r"bearer(?:\s{1,4}|%20|\+)([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_BASIC = re.compile(r"basic(?:\s{1,4}|%20|\+)([A-Za-z0-9+/_-]{8,}={0,2})", re.IGNORECASE)
_COOKIE = re.compile(r"""cookie\\*["']?\s{0,4}[:=]\s{0,4}[bB]?\\*["']?([^"'\r\n\\]{4,400})""", re.IGNORECASE)
_COOKIE_REST = re.compile(r"""[^"'\r\n\\]*""")
_URL_PASSWORD = re.compile(r"""://[^\s/:@"'<>?#]{0,200}:([^\s/@"'<>]{1,500})@""")
_URL_TOKEN = re.compile(r"://([A-Za-z0-9_.-]{16,300})@")
_PEM_HEAD = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=:,\s-]|\\[nr])*")
_TELEGRAM = re.compile(r"(?<=\d{8})(?::|%3[Aa])AA[A-Za-z0-9_-]{30,}")
_AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")


def secrets_in(text: str, registered: Mapping[str, tuple[str, ...]]) -> list[Span]:
    """Return the spans of all secrets, in no order; spans may overlap."""
    lowered = _lowered(text)
    spans = _registered_in(lowered, registered)
    spans += _prefixed(text)
    spans += _named(text, lowered)
    spans += _other(text, lowered)
    return spans


# ---------------------------------------------------------------------------------------------------- registered values


def registered_in(text: str, registered: Mapping[str, tuple[str, ...]]) -> list[Span]:
    """Return the spans of registered values only: for texts that are not ours, in which a shape proves nothing."""
    return _registered_in(_lowered(text), registered)


def _registered_in(lowered: str, registered: Mapping[str, tuple[str, ...]]) -> list[Span]:
    return [span for forms in registered.values() for form in forms for span in _occurrences(lowered, form)]


def _lowered(text: str) -> str:
    return text.replace("\u0130", "I").lower()  # U+0130 is the one character whose lower case is longer


def forms_of(secret: str) -> tuple[str, ...]:
    """Return the ways in which a value may appear, in lower case, each long enough to be searched for."""
    import base64
    import html
    import json
    from urllib.parse import quote, quote_plus

    raw = secret.encode("utf-8", "surrogatepass")
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, quote(raw, safe=""), quote_plus(raw), quote(raw, safe="/"), quote(quote(raw, safe=""), safe=""), escaped}
    forms |= {
        escaped.replace("/", "\\/"),
        json.dumps(escaped)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }
    forms |= {html.escape(secret), raw.hex()}
    for shift, lost in ((0, 0), (1, 2), (2, 3)):  # where in a base64 group the secret begins is not known
        coded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        whole = coded[lost : len(coded) - (1 if (len(raw) + shift) % 3 else 0)]
        forms |= {whole, whole.replace("+", "-").replace("/", "_"), quote(whole, safe="")} if len(whole) >= 10 else set()
    return tuple(sorted(form.replace("\u0130", "I").lower() for form in forms))


def is_placeholder(value: str) -> bool:
    """Whether a value stands where a key would and is none."""
    folded = value.casefold()
    return folded in PLACEHOLDERS or folded.startswith(("your", "${", "{{", "$", "<", "os.environ", "os.getenv", "getpass"))


def _occurrences(text: str, needle: str) -> Iterator[Span]:
    at = text.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = text.find(needle, at + len(needle))


# ---------------------------------------------------------------------------------------------------- shapes


@cache
def _tail(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _prefixed(text: str) -> Iterator[Span]:
    for table, inside_words in ((DISTINCT, True), (SHORT, False)):
        for prefix, tail in table.items():
            at = text.find(prefix)
            while at >= 0:
                after = at + len(prefix)
                if (inside_words or _at_word_start(text, at)) and (match := _tail(tail).match(text, after)):
                    after = match.end()
                    yield at, after
                at = text.find(prefix, after)
    if "AKIA" in text or "ASIA" in text:
        yield from _aws_secrets(text)


def _at_word_start(text: str, at: int) -> bool:
    """Whether a word begins here; the end of an escape (%22, a backslash and n, a colour code) is no part of the word."""
    before = text[at - 1 : at]
    return not (before.isascii() and before.isalnum()) or _ESCAPE_BEFORE.search(text, max(0, at - 16), at) is not None


def _aws_secrets(text: str) -> Iterator[Span]:
    """Yield what looks like the secret half of an AWS key: 40 characters of base64, in text that has the public half."""
    for match in _AWS_SECRET.finditer(text):
        word = match[0]
        if any(c.islower() for c in word) and any(c.isupper() for c in word) and any(c.isdigit() for c in word):
            yield match.span()


def _other(text: str, lowered: str) -> Iterator[Span]:
    for at, end in _occurrences(text, "://"):
        for pattern in (_URL_PASSWORD, _URL_TOKEN):
            match = pattern.match(text, at)
            if match and match[1] != _MASK and end <= match.start(1):
                yield match.span(1)
    yield from _private_keys(text)
    if ":AA" in text or "%3aaa" in lowered:
        yield from (m.span() for m in _TELEGRAM.finditer(text))
    for at, _ in _occurrences(lowered, "bearer"):
        if (match := _BEARER.match(text, at)) and (any(c.isdigit() for c in match[1]) or len(match[1]) >= 24):
            yield match.span(1)
    for at, _ in _occurrences(lowered, "basic"):
        if (match := _BASIC.match(text, at)) and _is_basic(match[1]):
            yield match.span(1)
    yield from _cookies(text, lowered)


def _cookies(text: str, lowered: str) -> Iterator[Span]:
    """Yield the values of Cookie and Set-Cookie headers, to the end of the line or the quote."""
    at = lowered.find("cookie")
    while at >= 0:
        after = at + 6
        if (match := _COOKIE.match(text, at)) and "=" in match[1] and not match[1].startswith(_MASK):
            after = _end(_COOKIE_REST, text, match.end())
            yield match.start(1), after
        at = lowered.find("cookie", after)


def _private_keys(text: str) -> Iterator[Span]:
    """Yield PEM blocks of private keys; one without an end reaches as far as its text looks like base64."""
    at = text.find("-----BEGIN ")
    while at >= 0:
        after = at + 11
        if head := _PEM_HEAD.match(text, at):
            end = text.find("-----END ", head.end(), head.end() + _MAX_PEM)
            close = text.find("-----", end + 9, end + 80) if end >= 0 else -1
            after = close + 5 if close >= 0 else _end(_PEM_BODY, text, head.end())
            yield at, after
        at = text.find("-----BEGIN ", after)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _is_basic(coded: str) -> bool:
    """Whether a word is user:password in base64, and not the word after "basic" in a sentence."""
    import base64
    import binascii

    try:
        raw = base64.b64decode(coded.replace("-", "+").replace("_", "/") + "=" * (-len(coded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return False
    return b":" in raw


# ---------------------------------------------------------------------------------------------------- behind a name


def _named(text: str, lowered: str) -> Iterator[Span]:
    for names, strength in _NAMES:
        for name in names:
            at = lowered.find(name)
            while at >= 0:
                after = at + len(name)
                found = _value_after(text, after)
                if found is not None and not lowered.endswith(NO_SECRETS, 0, after):
                    start, stop, quoted = found
                    spaced = text[start - 1 : start].isspace()
                    if _looks_secret(text[start : min(stop, start + _DECIDE_ON)], strength, quoted=quoted, spaced=spaced):
                        after = stop if quoted else _end(_BARE_REST, text, stop)
                        yield start, after
                at = lowered.find(name, after)


def _value_after(text: str, at: int) -> tuple[int, int, bool] | None:
    """Return (start, end, whether it is quoted) of the value behind a name that ends at `at`, None without one."""
    separator = _SEPARATOR.match(text, at)
    if separator is None:
        return None
    start = separator.end()
    quote = separator["quote"]
    if quote:
        end = text.find(quote, start, start + _MAX_QUOTED)
        while end > start and text[end - 1] == "\\":  # escaped, at whatever depth: rather too much than too little
            end = text.find(quote, end + 1, start + _MAX_QUOTED)
        line_end = text.find("\n", start, start + _MAX_QUOTED)
        if end > start and not 0 <= line_end < end:
            return start, end, True
    bare = _BARE.match(text, start)
    return (start, bare.end(), False) if bare else None


def _looks_secret(value: str, strength: str, *, quoted: bool, spaced: bool = False) -> bool:
    """Whether a value behind a name is to be masked; `strength` is the kind of name."""
    if value.startswith(_MASK) or is_placeholder(value) or not value.strip("*.…x-"):
        return False
    digit = _DIGIT.search(value) is not None
    if strength == "weak":
        mixed = digit and _LETTER.search(value) is not None
        return len(value) >= 12 and mixed and " " not in value and not value.startswith(("/", "http://", "https://"))
    if strength == "password":
        return len(value) >= 3 and (quoted or digit or not spaced)
    if quoted:
        return len(value) >= 4 and not (value.isupper() and "_" in value and value.isidentifier())
    return (digit and len(value) >= 4) or (len(value) >= 16 and not _IDENTIFIER.match(value)) or len(value) >= 32


def is_secret_field(name: str, value: str) -> bool:
    """Whether the value of a mapping's field is a secret by the field's name."""
    folded = name.casefold()
    if folded.endswith(NO_SECRETS):
        return False
    for names, strength in _NAMES:
        if folded.endswith(names) or (strength != "weak" and folded in names):
            return _looks_secret(value, strength, quoted=True)
    return folded in {"cookie", "set-cookie"}
