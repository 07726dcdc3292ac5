"""One watched call: started, shown while it comes, and kept, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from msgspec.structs import replace

from nbllm.core.reply import Reply
from nbllm.notebook.answer_view import tool_calls_text
from nbllm.notebook.failures import attach
from nbllm.notebook.lab.values import badge
from nbllm.notebook.meter import final_line
from nbllm.notebook.progress import Progress
from nbllm.notebook.screens import Screen

Keep = Callable[[Reply], None]


def run(
    client: Any, prompt: str, options: dict[str, Any], *, screen: Screen, keep: Keep, out: str = "", notes: Sequence[str] = ()
) -> Reply:
    """Ask, show the answer as it comes, keep the reply and return it.

    However the call ends early (an error, an interrupt at any moment), it is cancelled upstream, what was received is kept,
    marked as interrupted, the display says so, and the exception goes on. `out` is only for messages.
    notes: what the reply is to say besides its own notes.
    """
    live: Any = None
    reply: Reply | None = None
    progress = Progress(_first_model(client, options), time.monotonic())
    try:
        live = client.start(prompt, watched=True, **options)
        _watch(live, progress, screen)
        reply = live.reply
        if notes:
            reply = replace(reply, notes=(*reply.notes, *notes))
        keep(reply)
        screen.finish(shown_text(reply), final_line(reply, client), reply.notes, badge(reply))
    except BaseException as error:
        if reply is not None:
            keep(reply)
        elif live is not None:
            _stop(live, client, error, progress, screen=screen, keep=keep, out=out)
        raise
    return reply


def shown_text(reply: Reply) -> str:
    """Return what is shown of a reply: its text, else its tool calls."""
    return reply.text or tool_calls_text(reply.message)


def _first_model(client: Any, options: dict[str, Any]) -> str:
    models = (
        options.get("model") or getattr(client.settings, "model", None) or getattr(client.settings, "ladder", None) or ("model",)
    )
    return models if isinstance(models, str) else str(models[0])


def _watch(live: Any, progress: Progress, screen: Screen) -> None:
    from nbllm.live import DeltaEvent, Restarted, Started

    # Closing the events takes in what has come and is not shown yet, so that an interrupt loses none of it.
    with closing(live.events()) as events:
        for event in events:
            match event:
                case None:
                    screen.tick(progress, None)
                case DeltaEvent(delta=delta):
                    progress.delta(delta, time.monotonic())
                    screen.tick(progress, delta.text)
                case Started(attempt=attempt):
                    progress.started(attempt, time.monotonic())
                    screen.tick(progress, "")
                case Restarted(reason=reason):
                    progress.began_anew(reason)
                    screen.restarted(progress)


def _stop(live: Any, client: Any, error: BaseException, progress: Progress, *, screen: Screen, keep: Keep, out: str) -> None:
    """Cancel first, keep second, show third: a second interrupt may skip what comes later, never what came before."""
    live.cancel()
    partial, earlier = _what_came(live.partial_reply(), error, progress)
    received = bool(shown_text(partial) or partial.reasoning)
    if received:
        keep(partial)
    attach(error, partial, out=out, received=received)
    notes = [*(_kept(partial, error, out, earlier=earlier) if received else ()), *live.notes]
    line = final_line(partial, client) if received else f"{partial.label or 'The call'} · {_how(error)}"
    # What broke off is paid for, too: its badge has what the ledger knows of the cost, which may be nothing.
    screen.stopped(shown_text(partial), line, notes, badge(partial))


def _what_came(partial: Reply, error: BaseException, progress: Progress) -> tuple[Reply, str]:
    """Return the text to keep, and, where it is that of an earlier attempt, what became of that.

    Where the last attempt brought nothing, what an earlier one brought before it broke off is all that there is of the answer.
    """
    if shown_text(partial) or partial.reasoning:
        return partial, ""
    before = getattr(error, "partial", None)
    text, reasoning = (before.text, before.reasoning) if before else (progress.void, "")
    if not (text or reasoning):
        return partial, ""
    kept = replace(partial, text=text, reasoning=reasoning, message={"role": "assistant", "content": text})
    return kept, "broke off in mid-answer" if progress.restarted == "interrupted" else "ended"


def _kept(partial: Reply, error: BaseException, out: str, *, earlier: str) -> list[str]:
    how, count = _how(error), f"{len(shown_text(partial)):,} characters"
    first = f"{how[0].upper()}{how[1:]}{f'. An earlier attempt {earlier}' if earlier else ''}"
    return [f"{first} after {count}; what came is in {out or '_'}."]


def _how(error: BaseException) -> str:
    return "stopped by you" if isinstance(error, KeyboardInterrupt) else f"failed ({type(error).__name__})"
