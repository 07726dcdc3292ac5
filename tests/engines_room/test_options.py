"""Options of engines: what is allowed, what it becomes, and that no value becomes another argument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engines.catalog import ENGINES, engine_kind
from nbllm.engines.options import OPTIONS, choose, options_of
from nbllm.errors import EngineNotPossible

VLLM = ENGINES["vllm"]
KINDS = st.sampled_from(sorted(ENGINES))
ANYTHING = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["--trust-remote-code", "-x", "a --host 0.0.0.0", "$(id)", "a;b", "x\n--y", "\0", "--", "=", "{}", "1e9", "true"]
    ),
    st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(
        st.sampled_from(["method", "model", "num_speculative_tokens", "x"]), st.one_of(st.text(max_size=9), st.integers())
    ),
)  # fmt: skip


@given(KINDS, st.sampled_from(sorted(OPTIONS)), ANYTHING)
def test_no_value_becomes_another_argument(kind: str, name: str, value: Any) -> None:
    """Whatever is given is refused, or is one flag of the table, or that flag and one word that cannot be read as a flag."""
    row = ENGINES[kind]
    try:
        chosen = choose(row, {name: value})
    except EngineNotPossible:
        return
    flags = set((OPTIONS[name].spelled[kind]).split("|")) - {""}
    assert len(chosen.arguments) <= 2
    if chosen.arguments:
        assert chosen.arguments[0] in flags
        assert chosen.arguments[0].startswith("--")
    for word in chosen.arguments[1:]:
        assert word
        assert not word.startswith("-")
        assert not set(word) & set("\0\n\r")
    for variable, text in chosen.environment.items():
        assert f"${variable}" in flags
        assert not set(text) & set("\0\n\r ")


@given(KINDS, st.text(max_size=30))
def test_what_is_not_on_the_list_is_refused(kind: str, name: str) -> None:
    """An option is one of the table or an error that names what was meant or what there is; nothing passes through."""
    known = {row.name for row in options_of(ENGINES[kind])}
    if name.strip().removeprefix("--").replace("-", "_") in known:
        return
    with pytest.raises(EngineNotPossible) as caught:
        choose(ENGINES[kind], {name: "1"})
    assert "Nothing was started" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({"--max-model-len": "4096"}, ("--max-model-len", "4096")),
        ({"gpu_memory_utilization": "80%"}, ("--gpu-memory-utilization", "0.8")),
        ({"enable-prefix-caching": False}, ("--no-enable-prefix-caching",)),
        ({"enforce_eager": "true"}, ("--enforce-eager",)),
        ({"enforce_eager": False}, ()),
        ({"dtype": "bfloat16", "quantization": "awq"}, ("--dtype", "bfloat16", "--quantization", "awq")),
        ({"trust_remote_code": True}, ("--trust-remote-code",)),
        ({"lora_modules": "support=org/adapter"}, ("--lora-modules", "support=org/adapter")),
        ({"seed": None}, ()),
    ],
)
def test_options_become_words(given_options: dict[str, Any], words: tuple[str, ...]) -> None:
    """Dashes or underscores, values or their text: one flag, and at most one word."""
    assert choose(VLLM, given_options).arguments == words


def test_speculation_is_json_with_known_fields() -> None:
    """A JSON option is taken apart, checked field by field, and written anew."""
    flag, text = choose(VLLM, {"speculative_config": '{"method": "ngram", "num_speculative_tokens": 3}'}).arguments
    assert flag == "--speculative-config"
    assert json.loads(text) == {"method": "ngram", "num_speculative_tokens": 3}
    for wrong in ('{"methd": "ngram"}', '{"num_speculative_tokens": 0}', '{"model": "--x"}', "{}", "ngram"):
        with pytest.raises(EngineNotPossible):
            choose(VLLM, {"speculative_config": wrong})


def test_a_misspelt_option_is_told_the_right_one() -> None:
    """The nearest known name is in the hint, and who else has an option that this engine lacks."""
    with pytest.raises(EngineNotPossible, match="Did you mean max_model_len"):
        choose(VLLM, {"max-modl-len": 1})
    with pytest.raises(EngineNotPossible, match="llama-server has it"):
        choose(VLLM, {"n_gpu_layers": 1})


def test_files_that_options_name_must_be_there(tmp_path: Path) -> None:
    """A chat template is an absolute path of a file that exists."""
    template = tmp_path / "chat.jinja"
    with pytest.raises(EngineNotPossible, match="no file or folder"):
        choose(VLLM, {"chat_template": str(template)})
    template.write_text("x")
    assert choose(VLLM, {"chat_template": str(template)}).arguments == ("--chat-template", str(template.resolve()))


def test_only_what_can_change_answers_is_in_the_identity() -> None:
    """Quantization is, memory is not."""
    chosen = choose(VLLM, {"quantization": "fp8", "max_num_seqs": 8, "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2})
    assert chosen.answers == {"quantization": "fp8"}


def test_every_option_has_a_help_and_an_engine() -> None:
    """The table is whole: each row says what it is and belongs to engines that exist."""
    for row in OPTIONS.values():
        assert row.option.help.endswith(".") or row.option.help.endswith(")")
        assert set(row.spelled) <= set(ENGINES)
        assert row.spelled


def test_engines_are_found_by_the_names_that_people_use() -> None:
    """Sim and llama.cpp are understood; what is unknown is told what there is."""
    assert engine_kind("sim").name == "sim-server"
    assert engine_kind(" LLAMA.cpp").name == "llama-server"
    with pytest.raises(EngineNotPossible, match="Did you mean ollama"):
        engine_kind("olama")
