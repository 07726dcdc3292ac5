"""What a body must be before anybody parses it: small, JSON by its type, in UTF-8, not too deep, without NaN.

Parsers differ in what they let through: Python's takes NaN and UTF-16, and nesting of a thousand levels. All checks here take time
in proportion to the length of the body (some 40 ms for 1 MB at worst).
"""

from __future__ import annotations

import re
from itertools import accumulate

from nbllm.service.problems import ServiceProblem

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A JSON string, or what begins as one and does not end: always a match, so that no place of the text is looked at twice."""
_NO_NUMBER = re.compile(rb"NaN|Infinity")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Brackets as steps down and up: 1 and -1, as signed bytes."""
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"{}[]")))
_JSON_TYPE = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset\s*=\s*\"?utf-?8\"?\s*)?;?\s*\Z", re.IGNORECASE)
_usual_type = b"application/json"


class BodyTooLarge(ServiceProblem):
    """More bytes than a request may have."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(413, "too-large", "The body is too large.", f"It may have {most_bytes:,} bytes.")


def check_type(content_type: bytes | None) -> None:
    """Refuse a body that does not say that it is JSON in UTF-8."""
    if content_type == _usual_type or (content_type is not None and _JSON_TYPE.match(content_type)):
        return
    raise ServiceProblem(
        415, "unsupported-media-type", "The body is not JSON by its type.", "Send Content-Type: application/json, in UTF-8."
    )


def check_json(body: bytes, max_depth: int) -> None:
    """Refuse JSON that is too deep, is not UTF-8 or holds NaN or Infinity. What else is wrong with it, the parser says."""
    if b"\0" in body:  # UTF-16 and UTF-32 have them in every bracket; JSON in UTF-8 has none
        raise _malformed("It holds a NUL byte; JSON is sent in UTF-8.")
    deep = body.count(b"{") + body.count(b"[") > max_depth
    if not deep and _NO_NUMBER.search(body) is None:
        return
    bare = _STRING.sub(b"", body)
    if _NO_NUMBER.search(bare):
        raise _malformed("NaN and Infinity are no JSON.")
    if deep and _deeper(bare, max_depth):
        raise _malformed(f"It is nested more than {max_depth} levels deep.")


def _deeper(bare: bytes, max_depth: int) -> bool:
    """Whether brackets (of a text without strings) are nested deeper than that."""
    steps = memoryview(bare.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0) > max_depth


def _malformed(detail: str) -> ServiceProblem:
    return ServiceProblem(400, "malformed-json", "The body is no JSON that is taken here.", detail)
