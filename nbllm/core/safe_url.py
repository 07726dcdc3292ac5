"""Addresses that a model's text may link to. Part of nbllm.core.safe_markdown."""

from __future__ import annotations

import html
import re
from urllib.parse import quote, urlsplit

MAX_URL_CHARS = 2000
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_MAIL = re.compile(r"mailto:[A-Za-z0-9._%+-]{1,100}@[A-Za-z0-9.-]{1,200}(?:\?[A-Za-z0-9=&%._+-]{0,500})?\Z", re.IGNORECASE)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9\u00a1-\U0010ffff._-]{1,253}(?::\d{1,5})?\Z")
_SAFE = "%/:?#&+,;=~._-"


def safe_url(written: str) -> str | None:
    """Return the address to write into Markdown for one that a model wrote, None unless it is plain http, https or mailto.

    Entities and escapes are read as a renderer would; what remains is percent-encoded, so that it holds no character that means
    something to Markdown, HTML or math. Addresses with credentials are refused: they are made to look like other hosts.
    """
    url = html.unescape(_ESCAPE.sub(r"\1", written)).strip()
    if not url or len(url) > MAX_URL_CHARS or any(c.isspace() or not c.isprintable() for c in url):
        return None
    if _MAIL.match(url):
        return quote(_BAD_PERCENT.sub("%25", url), safe=_SAFE + "@").replace("&", "&amp;")
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme.lower() not in {"http", "https"} or not url[len(parts.scheme) :].startswith("://"):
        return None
    if not _HOST.match(parts.netloc):
        return None
    return quote(_BAD_PERCENT.sub("%25", url), safe=_SAFE).replace("&", "&amp;")
