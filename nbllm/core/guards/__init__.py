"""Guards before a semantic hit: rules that see what a similarity score cannot, such as 7 days and 17 days, or "enable" and
"disable".

    verdicts = check("Refund within 7 days?", "Refund within 17 days?")
    [v.detail for v in verdicts if not v.passed]      # ["7 days here, 17 days there"]

Pure and lexical: English, German and Spanish, by word lists that ship and can be extended (`shipped().with_(opposites=...)`).
docs/semantic-cache.md
says what each guard looks at, and what none of them can see.
"""

from __future__ import annotations

from nbllm.core.guards.checking import ALL, LONGEST, check
from nbllm.core.guards.verdicts import Verdict
from nbllm.core.guards.words import GuardWords, shipped

VERSION = "5"
"""Raised when a verdict may be another than before: plans are made for one version."""

__all__ = ["ALL", "LONGEST", "VERSION", "GuardWords", "Verdict", "check", "shipped"]
