"""%%llm and %llm: parse, ask, return. What they take is declared in nbllm.notebook.manuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, needs_local_scope, no_var_expand
from traitlets import Bool, Float

from nbllm.notebook.flags import parse
from nbllm.notebook.names import check_named, schema_named, users_names
from nbllm.settings.flags import BadLine
from nbllm.settings.llm_manual import LLM, LLM_LINE, asked_options

if TYPE_CHECKING:
    from nbllm.core.reply import Reply


@magics_class
class LLMMagics(Magics):
    """Ask language models from cells. `%config LLMMagics` lists what can be set."""

    updates_per_s = Float(10.0, min=0.1, max=10.0, help="Most updates of a streaming answer per second, 0.1 to 10.").tag(
        config=True
    )
    full_traceback = Bool(default_value=False, help="Show every frame of a failed call instead of a few lines.").tag(config=True)

    def __init__(self, shell: Any, client: Callable[[], Any], **kwargs: Any) -> None:
        super().__init__(shell, **kwargs)
        self._shell = shell
        self._client = client

    @no_var_expand
    @needs_local_scope
    def llm(self, line: str, cell: str, local_ns: Mapping[str, Any] | None = None) -> None:
        """Ask and show the answer as it comes; keep the Reply in the -o variable, else in `_`."""
        self._ask(dict(parse(LLM, line).values), cell.rstrip("\n"), {**self._shell.user_ns, **(local_ns or {})})

    @no_var_expand
    @needs_local_scope
    def llm_line(self, line: str, local_ns: Mapping[str, Any] | None = None) -> Reply:
        """Ask, show the answer as it comes, and return the Reply, which does not show itself once more in that cell."""
        from nbllm.notebook.screens import shown_once

        parsed = parse(LLM_LINE, line)
        if not parsed.rest:
            raise UsageError(
                "%llm needs a prompt on its line: %llm [options] PROMPT. For longer ones use %%llm. %llm? is the manual."
            )
        reply = self._ask(dict(parsed.values), parsed.rest, {**self._shell.user_ns, **(local_ns or {})}, returned=True)
        shown_once(self._shell, reply)
        return reply

    def _ask(self, given: dict[str, Any], prompt: str, namespace: Mapping[str, Any], *, returned: bool = False) -> Reply:
        from nbllm.notebook.runner import run
        from nbllm.notebook.screens import screen_for

        if not prompt.strip():
            raise UsageError("The prompt is empty: write it below the %%llm line. %%llm? is the manual.")
        out = given.get("out", "")
        options = call_options(given, namespace)
        if not given.get("raw"):
            prompt = filled_in(prompt, namespace)
            if "system" in options:
                options["system"] = filled_in(options["system"], namespace)

        def keep(reply: Reply) -> None:
            if out:
                self._shell.push({out: reply})
            elif not returned or reply.interrupted:
                self._shell.displayhook.update_user_ns(reply)

        screen = screen_for(
            self._shell,
            quiet=given.get("quiet", False),
            updates_per_s=self.updates_per_s,
            language="json" if "schema" in given else "",
        )
        notes = [f"{name} is no option of nbllm: it goes to the provider as it is." for name in options.get("extra", ())]
        return run(self._client(), prompt, options, screen=screen, keep=keep, out=out, notes=notes)


def call_options(given: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the call: the flags' values, names looked up, --set sorted into options and provider fields."""
    try:
        options = asked_options(given)
    except BadLine as error:
        raise UsageError(str(error)) from None
    if "schema" in given:
        options["schema"] = schema_named(given["schema"], namespace)
    if "check" in given:
        options["check"] = check_named(given["check"], namespace)
    return options


def filled_in(template: str, namespace: Mapping[str, Any]) -> str:
    """Return the prompt with the notebook's variables filled in. Only the names that it uses are handed to the template."""
    if "{{" not in template and "{%" not in template:
        return template
    from nbllm.core.templates import names_in, render

    return render(
        template, {name: namespace[name] for name in names_in(template) if name in namespace}, known=users_names(namespace)
    )
