"""Settings that keep chance and a busy machine out of a test of the semantic cache."""

from __future__ import annotations

STEADY = {"semantic_cache.audit_share": 0.0, "semantic_cache.embed_timeout_s": 30.0}
"""No hit is drawn for an audit, and a question has time to be embedded while the index still loads."""
