"""The lines of magics, read as nbllm.settings.flags reads them; what is wrong with one is IPython's own usage error."""

from __future__ import annotations

from IPython.core.error import UsageError

from nbllm.settings import flags
from nbllm.settings.flags import BadLine, Manual, Parsed


def parse(manual: Manual, line: str) -> Parsed:
    """Return the line's values and rest. Raises UsageError, in words for people. See nbllm.settings.flags.parse."""
    try:
        return flags.parse(manual, line)
    except BadLine as error:
        raise UsageError(str(error)) from None
