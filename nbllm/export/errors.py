"""What goes wrong with an export apart from the notebook's own code."""

from __future__ import annotations

from nbllm.errors import NbllmError


class ExportError(NbllmError):
    """A target folder or a choice that makes no export possible. Nothing was written."""
