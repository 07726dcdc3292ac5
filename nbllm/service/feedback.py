"""POST /v1/feedback: a caller says whether an answer that another question's stood in for was right."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from nbllm.errors import InvalidRequest
from nbllm.service.access import Authenticated
from nbllm.service.context import service_of
from nbllm.service.problems import ServiceProblem
from nbllm.service.strict_json import StrictRoute, well_formed
from nbllm.service.v1_docs import TAG, openai_refusals

CallId = Annotated[str, Field(min_length=1, max_length=100, description="Of the answer: `nbllm.call_id` in its body.")]


class FeedbackBody(BaseModel):
    """Whether an answer was right."""

    model_config = ConfigDict(title="Feedback", extra="forbid", strict=True)

    call_id: CallId
    correct: bool


class FeedbackTaken(BaseModel):
    """What it did. evicted: stored answers that were taken out."""

    model_config = ConfigDict(title="FeedbackTaken")

    call_id: str
    correct: bool
    evicted: int


router = APIRouter(tags=[TAG], route_class=StrictRoute)


@router.post(
    "/v1/feedback",
    summary="Whether an answer was right",
    dependencies=[Depends(well_formed)],
    responses=dict[int | str, Any](openai_refusals(400, 401, 404, 408, 413, 415, 422, 429, 500, 503).items()),
)
async def feedback(request: Request, caller: Authenticated, body: FeedbackBody) -> FeedbackTaken:
    """Take a caller's word for an answer of its own that came from a similar question (source "semantic").

    A wrong one leaves the cache, and the two questions never stand for each other again. Other calls cannot be spoken of: what one
    key says must not empty the cache of others.
    """
    service = service_of(request)
    mark = service.client.semantic.mark
    try:
        done = await asyncio.to_thread(mark, body.call_id, wrong=not body.correct, owner=f"key:{caller.key_id}")
    except InvalidRequest:
        detail = "No call of this key with that id got the answer of a similar question."
        raise ServiceProblem(404, "not-found", "Not Found.", detail, parameter="call_id") from None
    return FeedbackTaken(call_id=body.call_id, correct=body.correct, evicted=done.evicted)
