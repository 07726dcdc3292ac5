"""When an answer to a similar question may stand in: pure decisions, without embeddings, index or clock."""

from __future__ import annotations

from nbllm.core.semantic.question import MAX_QUESTION_CHARS, NotAsked, Question, question_of

__all__ = ["MAX_QUESTION_CHARS", "NotAsked", "Question", "question_of"]
