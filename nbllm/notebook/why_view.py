"""%llm_why: who answered and for what reason; for a similar hit what was matched, what guards it, and under which bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbllm.core.messages import CallRow
from nbllm.core.meter_line import short_label
from nbllm.core.ports.matches import Match
from nbllm.core.reply import Reply
from nbllm.core.why import Why
from nbllm.errors import NbllmError
from nbllm.notebook import wording
from nbllm.notebook.call_tables import cost_of, short_id
from nbllm.notebook.panel_view import Audience
from nbllm.notebook.views import Table, Text, View, columns

_SOURCES = {
    "model": "a model",
    "cache": "the cache: exactly this was asked before",
    "semantic": "the semantic cache: a similar question was asked before",
    "stale": "the cache, with an answer past its time, since no model answered",
    "static": "the static answer of the call, since no model answered",
}


def why_view(client: Any, reply: Reply | None, call: CallRow | None) -> View:
    """Return why an answer came from where it came. At least one of the two is needed; the reply knows more."""
    call_id = reply.call_id if reply is not None else call.call_id if call is not None else ""
    found = client.semantic.match_of(call_id)
    match = None if _rejected(found, reply, call) else found
    why = reply.why if reply is not None else call.why if call is not None else Why()
    facts = [*_answered(client, reply, call), *_route(why), *_served(why, match)]
    blocks: list[Table | Text] = [Table(columns=columns("", ""), rows=facts)]
    matched = why.matched_text or (match.question if match is not None else None)
    if match is not None:
        blocks.append(Text("The question", match.query))
    if matched:
        blocks.append(Text("The earlier question that it was held against", matched))
    blocks += _guards(why, match)
    return View(f"Why this answer: call {short_id(call_id)}", tuple(blocks), _notes(reply, found, rejected=match is not found))


def _answered(client: Any, reply: Reply | None, call: CallRow | None) -> list[tuple[str, str]]:
    source: str
    if reply is not None:
        source, rung, cost, saved = reply.source, reply.label, reply.cost_usd, reply.saved_usd
    elif call is not None:
        rung, saved = short_label(call.rung or call.model or "-"), call.saved_usd
        source, cost = call.source or "", cost_of(client.ledger.attempts(call.call_id))
    else:
        return []
    rows = [("answered by", _SOURCES.get(source, source or "nothing")), ("rung", rung), ("cost", wording.usd(cost))]
    if not (reply if reply is not None else call).accepted:  # type: ignore[union-attr]  # one of them is there
        rows.append(("accepted", "no: the best answer that there was"))
    return rows + ([("saved", wording.usd(saved))] if saved else [])


def _route(why: Why) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (("route", why.route), ("reason", why.reason)) if value]


def _served(why: Why, match: Match | None) -> list[tuple[str, str]]:
    similarity = why.similarity if why.similarity is not None else None if match is None else match.score
    rows = []
    if similarity is not None:
        rows.append(("similarity", f"{similarity:.4f}"))
    if why.threshold is not None:
        rows.append(("threshold in force", f"{why.threshold:.4f}"))
    if why.error_upper is not None:
        rows.append(("bound in force", f"at most {why.error_upper:.1%} of such answers are wrong (plan {why.plan_id})"))
    return rows


def _guards(why: Why, match: Match | None) -> list[Table | Text]:
    heads = columns("guard", "verdict", "what it saw")
    if why.guards is not None:
        rows: Sequence[Sequence[str]] = [
            (one.guard, "passed" if one.passed else "stopped it", " ".join(one.detail.split())) for one in why.guards
        ]
    elif match is not None and match.failed:
        rows = [(guard, "stopped it", detail.strip()) for guard, _, detail in (said.partition(":") for said in match.failed)]
    else:
        return []
    return [Table(columns=heads, rows=rows, caption="Guards", empty="No guard is on.")]


def _rejected(match: Match | None, reply: Reply | None, call: CallRow | None) -> bool:
    """Whether a hit is not the answer that the call got: a cascade did not accept it."""
    source = reply.source if reply is not None else call.source if call is not None else None
    return match is not None and match.kind == "hit" and source != "semantic"


def _notes(reply: Reply | None, match: Match | None, *, rejected: bool) -> tuple[str, ...]:
    notes = list(reply.notes) if reply is not None else []
    if match is not None and rejected:
        met = f"A similar question's answer was found for {match.rung} (similarity {match.score:.4f})"
        notes.append(f"{met}, and the cascade did not accept it.")
    if match is not None and match.kind == "shadow":
        notes.append("Shadow: a similar question was met and recorded; the model answered all the same.")
    if match is not None and match.kind == "audit":
        notes.append("Audit: the semantic cache would have answered; this one went to the model, to be labelled (%llm_label).")
    return tuple(notes)


class WhyView:
    """The reasons, with a button [Mark wrong] where widgets live and the line of code elsewhere."""

    def __init__(self, client: Any, call_id: str, view: View, audience: Audience, name: str = "") -> None:
        self._client = client
        self._call_id = call_id
        self._audience = audience
        what = name or f'"{call_id}"'
        code = f"Was it wrong? nbllm.mark({what}) takes the stored answer out; questions that shared it never match again."
        self.view = View(view.title, view.blocks, view.notes if audience == "widgets" else (*view.notes, code))
        self.button: Any = None
        self.said: Any = None

    def __repr__(self) -> str:
        """Return it as plain text."""
        return str(self.view)

    def mark(self, *_: Any) -> None:
        """Mark the answer as wrong, and say what that did."""
        from nbllm.core.safe_markdown import escape_html

        self.button.disabled = True
        try:
            said = repr(self._client.semantic.mark(self._call_id))
        except NbllmError as error:
            self.button.disabled = False
            said = str(error)
        self.said.value = f'<span role="status" style="line-height:1.4">{escape_html(said)}</span>'

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self._audience == "terminal":
            print(self.view)  # noqa: T201 - a terminal is where print belongs
            return
        display(self.view)  # type: ignore[no-untyped-call]  # untyped in IPython
        if self._audience == "widgets":
            import ipywidgets as widgets

            self.button = widgets.Button(description="Mark wrong", tooltip="Take this answer out of the cache, for good")
            self.said = widgets.HTML()
            self.button.on_click(self.mark)
            row = widgets.HBox([self.button, self.said], layout={"flex_flow": "row wrap", "align_items": "center"})
            text = f'nbllm.mark("{self._call_id}") marks it as wrong'
            display({**row._repr_mimebundle_(), "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
