"""What %%llm and %llm ask, with a client that plays scripts: the prompt, the options, and where the reply is kept."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.core.reply import Reply
from tests.notebook.fakes import FakeClient


def test_a_cell_asks_with_its_options_and_keeps_the_reply(shell: Any, client: FakeClient) -> None:
    """Everything on the line reaches the client; the variable holds the Reply."""
    shell.user_ns["doc"] = "a text"
    shell.run_cell_magic("llm", "-m sim/large -o answer --feature f --set top_p=0.9 --set mode=fast", "Summarise {{ doc }}.")
    prompt, options = client.asked[0]
    assert prompt == "Summarise a text."
    assert options == {"model": ("sim/large",), "feature": "f", "top_p": 0.9, "extra": {"mode": "fast"}}
    assert isinstance(shell.user_ns["answer"], Reply)


def test_without_out_the_reply_is_in_underscore(shell: Any, client: FakeClient) -> None:
    """As with any expression whose value was not given a name."""
    shell.run_cell("%%llm\nHi")
    assert shell.user_ns["_"].text == "Hello."


def test_with_out_underscore_is_left_alone(shell: Any, client: FakeClient) -> None:
    """As with any assignment."""
    shell.run_cell("1 + 1")
    shell.run_cell("%%llm -o x\nHi")
    assert shell.user_ns["_"] == 2


def test_a_raw_prompt_is_sent_as_it_stands(shell: Any, client: FakeClient) -> None:
    """Braces stay braces, and undefined names are no matter."""
    shell.run_cell_magic("llm", "--raw", "Explain {{ nothing }} and {% raw %}.")
    assert client.asked[0][0] == "Explain {{ nothing }} and {% raw %}."


def test_braces_in_a_prompt_need_no_escaping_and_shell_variables_are_not_expanded(shell: Any, client: FakeClient) -> None:
    """IPython would expand {x} and $x in a line; a prompt keeps them."""
    shell.user_ns["x"] = 7
    shell.run_cell('%%llm -s "be {x} $x"\n{"a": {x}} costs $x')
    prompt, options = client.asked[0]
    assert (prompt, options["system"]) == ('{"a": {x}} costs $x', "be {x} $x")


def test_only_names_that_the_template_uses_are_looked_at(shell: Any, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's other variables never reach the template."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("nbllm.core.templates.render", lambda template, values, **_: (seen.update(values), template)[1])
    shell.user_ns.update(doc="a", secret="b")
    shell.run_cell_magic("llm", "", "{{ doc }}")
    assert seen == {"doc": "a"}


@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("", "  \n", "The prompt is empty"),
        ("--schema Persn", "x", "Did you mean Person?"),
        ("--schema numbers", "x", "not a list"),
        ("--schema Person.nothing", "x", "there is no nothing"),
        ("--check numbers", "x", "a function is needed"),
        ("--check nope", "x", "nope is not defined"),
        ("--set temperature=1 -t 0", "x", "temperature is given twice"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    shell: Any, client: FakeClient, line: str, cell: str, said: str
) -> None:
    """A UsageError names the value; the client is not asked."""
    shell.user_ns.update(Person=type("Person", (), {}), numbers=[1])
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        shell.run_cell_magic("llm", line, cell)
    assert client.asked == []


def test_a_line_in_a_function_sees_its_locals(shell: Any, client: FakeClient) -> None:
    """Templates use the names that are in sight where the magic stands."""
    shell.run_cell("def f(word):\n    return get_ipython().run_line_magic('llm', 'Define {{ word }}')\nf('ECDF')")
    assert client.asked[0][0] == "Define ECDF"


def test_a_question_on_a_line_is_asked_and_not_taken_for_help(shell: Any, client: FakeClient) -> None:
    """IPython reads a line that ends in ? as a call for help; a prompt may end so all the same, and %llm? is still the manual."""
    shell.run_cell("y = %llm -m sim/small What's an ECDF?")
    shell.run_cell("%llm Why??")
    assert [prompt for prompt, _ in client.asked] == ["What's an ECDF?", "Why??"]
    assert shell.user_ns["y"].text == "Hello."
    shell.run_cell("%llm?")
    shell.run_cell("%%llm -m sim/small\n%llm is a magic?")
    assert len(client.asked) == 3


def test_a_comment_may_stand_on_the_line(shell: Any, client: FakeClient) -> None:
    """As the examples of the manual have it."""
    shell.run_cell("%%llm --cache refresh   # ask anew\nHi")
    assert client.asked == [("Hi", {"cache": "refresh"})]


def test_a_misspelt_option_of_set_is_refused_and_a_strange_one_is_noted(shell: Any, client: FakeClient) -> None:
    """A near miss is a mistake; anything else is a field for the provider, and the reply says so."""
    with pytest.raises(UsageError, match="Did you mean temperature"):
        shell.run_cell_magic("llm", "--set temprature=3", "Hi")
    assert client.asked == []
    shell.run_cell_magic("llm", "--set foo=1 -o x", "Hi")
    assert client.asked[0][1]["extra"] == {"foo": 1}
    assert shell.user_ns["x"].notes == ("foo is no option of nbllm: it goes to the provider as it is.",)
