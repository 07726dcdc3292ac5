"""Does it fit: the arithmetic against models whose numbers are known, worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engines import plan_launch
from nbllm.engines.catalog import ENGINES
from nbllm.engines.fit import fit
from nbllm.engines.gpu import Gpu, machine_free_bytes, parsed, visible
from nbllm.engines.model_files import ModelFiles, model_files, parameters_named
from nbllm.engines.shapes import shape_of
from nbllm.engines.sizing import OVERHEAD_BYTES, size
from nbllm.errors import EngineDoesNotFit

GIB = 1024**3
VLLM = ENGINES["vllm"]
QWEN_05 = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "intermediate_size": 4864, "vocab_size": 151_936, "tie_word_embeddings": True, "max_position_embeddings": 32_768,
}  # fmt: skip
LLAMA_8 = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14_336, "vocab_size": 128_256, "tie_word_embeddings": False, "max_position_embeddings": 131_072,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14_336, "vocab_size": 32_000, "num_local_experts": 8, "tie_word_embeddings": False,
    "max_position_embeddings": 32_768,
}  # fmt: skip
DEEPSEEK_LITE = {
    "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102_400,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "intermediate_size": 10_944, "n_routed_experts": 64, "moe_intermediate_size": 1408,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50_257, "n_positions": 1024}
A10 = [Gpu(0, "NVIDIA A10G", 24 * GIB, 24 * GIB)]


@pytest.mark.parametrize(
    ("config", "parameters", "kv_values"),
    [
        (QWEN_05, 494e6, 2 * 24 * 2 * 64),  # Qwen2.5-0.5B: 0.49 billion parameters
        (LLAMA_8, 8.03e9, 2 * 32 * 8 * 128),  # Llama-3.1-8B: 8.03 billion; 128 kB a token in 16 bits
        (MIXTRAL, 46.7e9, 2 * 32 * 8 * 128),  # Mixtral-8x7B: 46.7 billion
        (GPT2, 124e6, 2 * 12 * 12 * 64),  # GPT-2: 124 million
        (DEEPSEEK_LITE, None, 27 * (512 + 64)),  # DeepSeek-V2-Lite keeps one latent and the rotary part a token and layer
    ],
)
def test_known_models_have_their_known_numbers(config: dict[str, Any], parameters: float | None, kv_values: int) -> None:
    """Parameters within 2% of what the model's authors say; KV per token exactly 2 x layers x kv_heads x head_dim."""
    shape = shape_of(config)
    assert shape is not None
    assert shape.kv_values_per_token == kv_values
    if parameters is not None:
        assert shape.parameters == pytest.approx(parameters, rel=0.02)


def test_an_8b_on_24_gib_by_hand() -> None:
    """25.77 GB x 0.92 = 23.71; less 16.06 of weights and 1.5 leaves 6.15: 46,907 tokens of 131,072 bytes, 46,896 in blocks."""
    shape = shape_of(LLAMA_8)
    assert shape is not None
    sizing = size(shape, memory_bytes=24 * GIB, memory_name="A10G", weights_bytes=16.06e9)
    assert sizing.kv_bytes_per_token == 131_072
    assert sizing.kv_room_bytes == pytest.approx(24 * GIB * 0.92 - 16.06e9 - 1.5e9)
    assert sizing.kv_tokens == int((24 * GIB * 0.92 - 17.56e9) // (131_072 * 16)) * 16 == 46_896
    assert not sizing.fits  # its own window has 131,072
    assert sizing.longest_max_model_len == 46_896
    shorter = size(shape, memory_bytes=24 * GIB, memory_name="A10G", weights_bytes=16.06e9, max_model_len=8192)
    assert shorter.fits
    assert shorter.sequences == pytest.approx(46_896 / 8192)


def test_quantized_weights_and_caches_count_as_they_are_loaded() -> None:
    """4 bits a parameter of a layer, one byte a value in an fp8 cache, 32 bits loaded in 16."""
    awq = shape_of({**LLAMA_8, "quantization_config": {"quant_method": "awq", "bits": 4}})
    plain = shape_of(LLAMA_8)
    assert awq is not None
    assert plain is not None
    assert size(awq, memory_bytes=1, memory_name="").weights_bytes == pytest.approx(
        plain.layer_parameters / 2 + plain.plain_parameters * 2
    )
    assert size(plain, memory_bytes=1, memory_name="", kv_dtype="fp8_e5m2").kv_bytes_per_token == 65_536
    on_disk_in_32 = size(plain, memory_bytes=1, memory_name="", weights_bytes=plain.parameters * 4)
    assert on_disk_in_32.weights_bytes == pytest.approx(plain.parameters * 2)
    assert size(plain, memory_bytes=1, memory_name="", dtype="float32").weights_bytes == pytest.approx(plain.parameters * 4)


def test_the_language_model_within_a_vision_model_counts() -> None:
    """What matters stands in text_config there."""
    assert shape_of({"model_type": "some_vl", "text_config": LLAMA_8}) == shape_of({**LLAMA_8, "model_type": "llama"})


@given(
    st.dictionaries(
        st.sampled_from([*LLAMA_8, "n_embd", "head_dim", "kv_lora_rank", "quantization_config", "text_config", "num_experts"]),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=3), st.booleans(), st.floats(), st.dictionaries(st.text(), st.integers())
        ),
    ),
    st.floats(min_value=0, max_value=1e13), st.integers(1, 8), st.one_of(st.none(), st.integers(1, 10**6)),
)  # fmt: skip
def test_any_config_gives_a_table_or_nothing(config: dict[str, Any], memory_bytes: float, gpus: int, length: int | None) -> None:
    """No config.json makes the arithmetic raise, and what it says fits does fit."""
    shape = shape_of({**LLAMA_8, **config})
    if shape is None:
        return
    sizing = size(shape, memory_bytes=memory_bytes, memory_name="some", max_model_len=length, gpus=gpus)
    assert sizing.table().count("\n") == 8
    used = sizing.weights_bytes + OVERHEAD_BYTES * gpus + sizing.longest_max_model_len * sizing.kv_bytes_per_token
    assert sizing.longest_max_model_len == 0 or used <= sizing.room_bytes * (1 + 1e-9)
    if sizing.fits and sizing.max_model_len:
        assert sizing.kv_tokens >= sizing.max_model_len


def files(config: dict[str, Any], weights_bytes: int | None = None) -> ModelFiles:
    return ModelFiles(None, config, weights_bytes)


def test_what_cannot_fit_is_refused_with_the_arithmetic_and_the_longest_that_does() -> None:
    """The table is in the error, the way out in its hint."""
    found = fit(VLLM, "llama-8b", {}, files(LLAMA_8), A10, None)
    with pytest.raises(EngineDoesNotFit, match="max-model-len 131,072") as caught:
        found.check()
    assert "KV per token" in str(caught.value)
    assert "--max-model-len 4" in caught.value.hint
    with pytest.raises(EngineDoesNotFit, match="weights and overhead need"):
        fit(VLLM, "mixtral", {}, files(MIXTRAL), A10, None).check()
    fit(VLLM, "llama-8b", {"max_model_len": 8192}, files(LLAMA_8), A10, None).check()


def test_more_gpus_than_there_are_and_gpus_that_others_use_are_refused() -> None:
    """Both are said before the engine would find out minutes later."""
    with pytest.raises(EngineDoesNotFit, match="asks for 4 GPUs and 1"):
        fit(VLLM, "m", {"tensor_parallel_size": 4}, files(QWEN_05), A10, None).check()
    busy = [Gpu(0, "NVIDIA A10G", 24 * GIB, 12 * GIB)]
    with pytest.raises(EngineDoesNotFit, match="another process uses it") as caught:
        fit(VLLM, "m", {}, files(QWEN_05), busy, None).check()
    assert "--gpu-memory-utilization 0.49" in caught.value.hint


def test_without_a_gpu_it_is_said_what_would_work() -> None:
    """The machine's own memory is counted, and what runs without a GPU is named."""
    found = fit(VLLM, "m", {}, files(QWEN_05), None, 16 * GIB)
    found.check()
    assert "No NVIDIA GPU" in found.notes[0]
    assert "%serve start sim large" in found.notes[0]
    assert found.sizing is not None
    assert found.sizing.memory_name == "this machine's memory"
    limited = fit(VLLM, "m", {"cpu_kvcache_gb": 1}, files(QWEN_05), None, 16 * GIB).sizing
    assert limited is not None
    assert limited.kv_tokens == GIB // 12_288 // 16 * 16


def test_on_a_cpu_too_the_share_has_to_be_free() -> None:
    """A vLLM takes its share at once, unless its KV cache has a room of its own; what is not known is not refused."""
    with pytest.raises(EngineDoesNotFit, match=r"This machine has 12\.9 GB free, and the engine would take 15\.8 GB") as caught:
        fit(VLLM, "m", {}, files(QWEN_05), None, 16 * GIB, 12 * GIB).check()
    assert "--gpu-memory-utilization 0.74" in caught.value.hint
    fit(VLLM, "m", {"gpu_memory_utilization": 0.74}, files(QWEN_05), None, 16 * GIB, 12 * GIB).check()
    fit(VLLM, "m", {"cpu_kvcache_gb": 1}, files(QWEN_05), None, 16 * GIB, 12 * GIB).check()
    fit(VLLM, "m", {}, files(QWEN_05), A10, 16 * GIB, 1 * GIB).check()
    fit(VLLM, "m", {}, files(QWEN_05), None, 16 * GIB, None).check()


def test_what_is_free_is_read_as_linux_tells_it(tmp_path: Path) -> None:
    """What could be taken, page cache included; where the system says nothing, nothing is known."""
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       24684096 kB\nMemFree:         100 kB\nMemAvailable:   2048 kB\n")
    assert machine_free_bytes(told) == 2048 * 1024
    told.write_text("MemTotal: 1 kB\n")
    assert machine_free_bytes(told) is None
    assert machine_free_bytes(tmp_path / "nothing") is None


def test_a_model_that_is_not_here_yet_is_judged_by_its_name() -> None:
    """70B cannot fit on 24 GB even in 4 bits; of 0.5B only the weights are known; without a number nothing is claimed."""
    with pytest.raises(EngineDoesNotFit, match=r"By its name the weights take about 140\.0 GB"):
        fit(VLLM, "org/Big-70B", {}, files({}), A10, None).check()
    small = fit(VLLM, "org/Small-0.5B-Instruct", {}, files({}), A10, None)
    small.check()
    assert "was not counted" in small.notes[0]
    assert "was not checked" in fit(VLLM, "org/some", {}, files({}), A10, None).notes[0]
    assert fit(ENGINES["ollama"], "qwen", {}, files({}), A10, None).notes == ()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9),
        ("mistralai/Mixtral-8x7B", 56e9),
        ("HF/SmolLM2-135M", 135e6),
        ("gpt2", None),
        ("B2B", None),
    ],
)
def test_parameters_are_read_from_names(name: str, parameters: float | None) -> None:
    """As people write them."""
    assert parameters_named(name) == parameters


def test_the_config_is_found_in_a_folder_and_in_the_hubs_cache(tmp_path: Path) -> None:
    """A folder has a fingerprint, because its files may change; a model of the hub has its revision."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN_05))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    here = model_files(str(folder), environ={})
    assert (here.config["hidden_size"], here.weights_bytes) == (896, 1000)
    before = here.fingerprint
    (folder / "model.safetensors").write_bytes(b"x" * 1001)
    assert before != model_files(str(folder), environ={}).fingerprint != ""
    cached = tmp_path / "hub" / "models--org--m"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps(QWEN_05))
    (cached / "snapshots" / "abc" / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 988}}')
    found = model_files("org/m", environ={"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert (found.path, found.weights_bytes, found.fingerprint) == (None, 988, "")
    assert model_files("org/other", environ={"HF_HUB_CACHE": str(tmp_path / "hub")}).config == {}


LISTED = """\
0, GPU-aaaa1111, NVIDIA H200, 143771, 143200
1, GPU-bbbb2222, NVIDIA A100-SXM4-80GB, 81920, 500
2, GPU-cccc3333, [Unknown Error], [N/A], [N/A]
"""


def test_what_nvidia_smi_prints_is_read() -> None:
    """Names, sizes in bytes; a GPU that does not tell its memory is left out."""
    first, second = parsed(LISTED)
    assert first == ("GPU-aaaa1111", Gpu(0, "NVIDIA H200", 143_771 * 1024**2, 143_200 * 1024**2))
    assert second[1].free_bytes == 500 * 1024**2
    assert parsed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


@pytest.mark.parametrize(
    ("devices", "indexes"), [(None, [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-bb", [1]), ("", []), ("-1", []), ("0,7,1", [0])]
)
def test_visible_devices_are_those_that_cuda_would_see(devices: str | None, indexes: list[int]) -> None:
    """By number or uuid, in that order, up to the first that is none."""
    assert [gpu.index for gpu in visible(parsed(LISTED), devices)] == indexes


def test_a_plan_refuses_what_does_not_fit_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """plan_launch looks at the model's folder and the GPU; force goes on all the same."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8))
    monkeypatch.setattr("nbllm.engines.plan.gpus", lambda _: A10)
    monkeypatch.setattr("nbllm.engines.plan._command", lambda *_: ("vllm", "serve"))
    with pytest.raises(EngineDoesNotFit, match="longest max-model-len that fits"):
        plan_launch("vllm", str(tmp_path))
    forced = plan_launch("vllm", str(tmp_path), force=True)
    assert forced.fit.problem
    assert str(tmp_path.resolve()) in forced.argv(1)


def test_a_kv_cache_larger_than_the_memory_is_refused() -> None:
    """What vLLM's CPU build is told to take must be there; the largest that is, is named."""
    asked = fit(VLLM, "m", {"cpu_kvcache_gb": 500}, files(QWEN_05), None, 16 * GIB)
    with pytest.raises(EngineDoesNotFit, match=r"A KV cache of 536\.9 GB does not fit") as caught:
        asked.check()
    most = int(re.findall(r"--cpu-kvcache-gb (\d+)", caught.value.hint)[0])
    fit(VLLM, "m", {"cpu_kvcache_gb": most}, files(QWEN_05), None, 16 * GIB).check()
    with pytest.raises(EngineDoesNotFit):
        fit(VLLM, "m", {"cpu_kvcache_gb": most + 1}, files(QWEN_05), None, 16 * GIB).check()


def test_a_folder_without_a_config_is_not_called_absent(tmp_path: Path) -> None:
    """It is on this machine; what is not there is its config.json."""
    (note,) = fit(VLLM, str(tmp_path), {}, ModelFiles(tmp_path, {}, None), A10, None).notes
    assert note == f"{tmp_path} has no config.json that says how large the model is: whether it fits was not checked."
