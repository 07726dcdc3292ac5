"""What a route may know of a request before it is sent."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Chat, Content, Options, Rung
from nbllm.settings import Endpoint

_NOWHERE = Rung(id="", model="", endpoint_name="", endpoint=Endpoint(), provider="simulated", identity="", price=None)
"""A request's fingerprint on no model in particular."""


class Facts(Struct, frozen=True, kw_only=True):
    """text: of the last message of the user (of the first text to embed). chars: of all messages or texts together."""

    content: Content
    text: str
    chars: int
    feature: str | None
    user: str | None
    tags: tuple[str, ...]

    def spread_by(self, by: str) -> str:
        """Return what decides where this request goes when requests are spread: its user, else its fingerprint."""
        if by == "user" and self.user is not None:
            return f"user:{self.user}"
        return f"request:{fingerprint(self.content, _NOWHERE)}"


def facts_of(content: Content, options: Options) -> Facts:
    """Return the facts of a request."""
    if isinstance(content, Chat):
        texts = [text_of(message.get("content")) for message in content.messages]
        asked = next(
            (text for m, text in zip(reversed(content.messages), reversed(texts), strict=True) if m.get("role") == "user"), ""
        )
    else:
        texts = list(content.texts)
        asked = texts[0]
    return Facts(
        content=content,
        text=asked,
        chars=sum(map(len, texts)),
        feature=options.feature,
        user=options.user,
        tags=options.tags,
    )


def text_of(content: Any) -> str:
    """Return the text of a message's content: itself, or that of its parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
