"""What the faults of the simulated models look like from outside."""

from __future__ import annotations

import json
from dataclasses import replace

from nbllm import errors
from nbllm.core.ports import Wire
from nbllm.providers.sim_answer import SimAnswer, counted
from nbllm.providers.sim_options import SimOptions
from nbllm.providers.sim_pace import tokens


def with_fault(made: SimAnswer, fault: str | None, options: SimOptions, sent_tokens: int, *, as_json: bool) -> SimAnswer:
    """Return the answer as a fault leaves it that is no error by itself: cut by the provider's limit, or broken JSON."""
    if fault == "length":
        made = replace(made, text="".join(tokens(made.text)[: options.after_tokens]), tool_calls=(), finish_reason="length")
        return counted(made, sent_tokens)
    if fault == "bad_json":
        text = made.text if as_json else json.dumps({"answer": made.text}, ensure_ascii=False)
        return counted(replace(made, text=text[: max(1, len(text) * 2 // 3)], tool_calls=(), finish_reason="stop"), sent_tokens)
    return made


def context_error(wire: Wire, sent_tokens: int, options: SimOptions) -> errors.ContextTooLong:
    """Return the error for a prompt that does not fit into the window."""
    return errors.ContextTooLong(
        f"{wire.rung.label}: the prompt has about {sent_tokens:,} tokens, the window {options.model.context_tokens:,}.",
        rung=wire.rung.id,
        status=400,
        hint="Shorten the prompt, or use a model with a larger window.",
    )


def refusal(fault: str | None, wire: Wire, options: SimOptions) -> errors.AttemptFailed | None:
    """Return the error that a fault without any answer raises, None for the others."""
    label, rung, asked_s = wire.rung.label, wire.rung.id, options.retry_after_s
    note = f"It was asked for with fault={fault}."
    match fault:
        case "refused":
            # All simulated models share one endpoint: that one of them plays dead must not shut out the healthy ones.
            return errors.ConnectionFailed(f"{label}: connection refused.", whole_endpoint=False, rung=rung, hint=note)
        case "reset":
            return errors.ConnectionFailed(f"{label} reset the connection before it answered.", rung=rung, hint=note)
        case "429":
            return errors.RateLimited(f"{label}: too many requests (429).", rung=rung, status=429, retry_after_s=asked_s, hint=note)
        case "500" | "503":
            status = int(fault)
            return errors.ServerFailed(f"{label} failed ({fault}).", rung=rung, status=status, retry_after_s=asked_s, hint=note)
        case "400":
            return errors.BadParameter(
                f"{label} refuses the parameter temperature (400).", parameter="temperature", rung=rung, status=400, hint=note
            )
        case "401":
            return errors.AuthenticationFailed(f"{label} refuses the key (401).", rung=rung, status=401, hint=note)
        case "403":
            return errors.PermissionDenied(f"{label} may not be used with this key (403).", rung=rung, status=403, hint=note)
        case "404":
            return errors.ModelNotFound(f"{label} does not know the model (404).", rung=rung, status=404, hint=note)
        case "filter":
            return errors.Refused(f"{label}: a content filter refused the prompt.", rung=rung, status=400, hint=note)
        case "empty":
            return errors.BadAnswer(f"{label} answered 200 with nothing in it.", rung=rung, hint=note)
        case "malformed":
            return errors.BadAnswer(f"{label} answered 200 with something that is no JSON.", rung=rung, hint=note)
    return None
