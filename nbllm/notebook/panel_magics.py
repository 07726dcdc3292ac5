"""%llm_panel, %llm_why, %llm_label: what a setting costs, why an answer came, and labels for what is not known yet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, no_var_expand

from nbllm.notebook import manuals
from nbllm.notebook.flags import parse
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from nbllm.notebook.panel_content import Content
    from nbllm.settings.flags import Parsed

_LABELS = 10


@magics_class
class PanelMagics(Magics):
    """Panels, reasons and labels of the current client."""

    def __init__(self, shell: Any, client: Callable[[], Any], **kwargs: Any) -> None:
        super().__init__(shell, **kwargs)
        self._shell = shell
        self._client = client

    @no_var_expand
    def llm_panel(self, line: str) -> Any:
        """Show a panel."""
        from nbllm.notebook.panel_view import PanelView, audience_of

        parsed = parse(manuals.PANEL, line)
        if not parsed.words:
            raise UsageError(f"%llm_panel needs one of {', '.join(manuals.PANELS)}. %llm_panel? is the manual.")
        kind, *rest = parsed.words
        if kind not in manuals.PANELS:
            raise UsageError(f"%llm_panel does not know {kind!r}. {did_you_mean(kind, manuals.PANELS)}")
        client = self._client()
        content = _content(kind, rest, parsed, client, self._shell.user_ns)
        return PanelView(content, audience_of(self._shell), _more(kind, client))

    @no_var_expand
    def llm_why(self, line: str) -> Any:
        """Say why an answer came from where it came."""
        from nbllm.core.reply import Reply
        from nbllm.notebook.book_magics import _call_named
        from nbllm.notebook.panel_view import audience_of
        from nbllm.notebook.why_view import WhyView, why_view

        parsed = parse(manuals.WHY, line)
        if len(parsed.words) > 1:
            raise UsageError("%llm_why takes one answer at a time: the name of a variable, or a call's id.")
        client, word = self._client(), parsed.words[0] if parsed.words else "_"
        found = self._shell.user_ns.get(word)
        if isinstance(found, Reply):
            name = word if parsed.words else ""
            return WhyView(client, found.call_id, why_view(client, found, None), audience_of(self._shell), name)
        if found is not None and parsed.words:
            raise UsageError(f"{word} is no answer but {type(found).__name__}. Give the variable of a Reply, or a call's id.")
        call = _call_named(client, word) if parsed.words else _newest(client)
        return WhyView(client, call.call_id, why_view(client, None, call), audience_of(self._shell))

    @no_var_expand
    def llm_label(self, line: str) -> Any:
        """Ask for labels."""
        from nbllm.notebook.label_view import LabelView, Sitting, in_terminal
        from nbllm.notebook.panel_view import audience_of

        parsed = parse(manuals.LABEL, line)
        if parsed.words:
            raise UsageError(f"%llm_label takes no {parsed.words[0]!r}: write %llm_label, or %llm_label -n 20.")
        sitting, audience = Sitting(self._client().semantic, parsed.values.get("limit", _LABELS)), audience_of(self._shell)
        if audience == "terminal":
            in_terminal(sitting, input, sys.stdout.write)
            return None
        return LabelView(sitting, live=audience == "widgets")


def _newest(client: Any) -> Any:
    from nbllm.core.ports import Filter

    found = client.ledger.calls(Filter(session=client.session), limit=1)
    if not found:
        raise UsageError("There is no answer yet to look at. Ask something with %%llm, or give a call's id: %llm_calls --all.")
    return found[0]


def _content(kind: str, rest: list[str], parsed: Parsed, client: Any, namespace: Mapping[str, Any]) -> Content:
    from nbllm.errors import InvalidLabels

    if kind != "semantic_cache" and parsed.values:
        raise UsageError("--max-error and --confidence go with %llm_panel semantic_cache only.")
    if kind == "routing" and len(rest) < 2:
        from nbllm.notebook.panel_routing import routing_content

        return routing_content(client, "".join(rest), namespace)
    if rest:
        raise UsageError(f"%llm_panel {kind} takes no {rest[0]!r}.")
    if kind == "latency":
        from nbllm.notebook.panel_latency import latency_content

        return latency_content(client)
    from nbllm.notebook.panel_semantic import semantic_content

    try:
        return semantic_content(client, **parsed.values)
    except InvalidLabels as error:
        raise UsageError(str(error)) from None


def _more(kind: str, client: Any) -> Callable[[], Any]:
    if kind != "semantic_cache":
        return tuple

    def labels() -> tuple[Any, ...]:
        from nbllm.notebook.label_view import LabelBox, Sitting

        sitting = Sitting(client.semantic, _LABELS)
        return (LabelBox(sitting).box,) if sitting.matches else ()

    return labels
