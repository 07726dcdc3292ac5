"""The one way secrets are kept out of anything that leaves."""

import re

_SECRETS: set[str] = set()
_SECRET_NAME = re.compile(r"key|token|secret|authorization|password|cookie|credential", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a header, field or variable of that name holds a secret by convention."""
    return _SECRET_NAME.search(name) is not None


def register_secret(value: str) -> None:
    """Mask this value from now on, wherever it appears."""
    if len(value) >= 6:
        _SECRETS.add(value)


def redact(text: str) -> str:
    """Return text with secrets masked."""
    for secret in _SECRETS:
        text = text.replace(secret, "[redacted]")
    return text
