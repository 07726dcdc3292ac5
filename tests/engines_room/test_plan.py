"""Plans, reasons and statuses: what is pure about engines."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engines import plan_launch
from nbllm.engines.catalog import ENGINES, MetricNames
from nbllm.engines.model_files import ModelFiles
from nbllm.engines.options import choose
from nbllm.engines.plan import identity_of, names_for
from nbllm.engines.reasons import reason_of
from nbllm.engines.status import Pace, metrics_of, samples, usd_per_mtok
from nbllm.errors import EngineNotPossible

VLLM = ENGINES["vllm"]


@pytest.fixture
def vllm_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vllm on PATH."""
    program = tmp_path / ("vllm.bat" if sys.platform == "win32" else "vllm")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_the_command_line_of_vllm(vllm_program: Path) -> None:
    """A list of words: program, model, names, loopback, port, options; quiet, and without a key."""
    plan = plan_launch("vllm", "Qwen/Qwen2.5-0.5B-Instruct", {"max_model_len": 4096, "cpu_kvcache_gb": 2})
    assert plan.argv(8123) == [
        *(str(vllm_program), "serve", "Qwen/Qwen2.5-0.5B-Instruct"),
        *("--served-model-name", "Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "qwen"),
        *("--host", "127.0.0.1", "--port", "8123", "--max-model-len", "4096"),
    ]
    assert plan.environment(8123) == {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2"}


def test_an_engine_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How it is installed, and what works without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind, program in (("vllm", "vllm"), ("llama-server", "llama-server"), ("ollama", "ollama")):
        with pytest.raises(EngineNotPossible, match=f"{program} is not on PATH") as caught:
            plan_launch(kind, "some-model")
        assert "%serve start sim large" in caught.value.hint
        assert "%serve attach URL" in caught.value.hint
        assert "attach" in caught.value.hint
    with pytest.raises(EngineNotPossible, match="has no vllm"):
        plan_launch("vllm", "some-model", python=sys.executable)
    with pytest.raises(EngineNotPossible, match="no Python at"):
        plan_launch("vllm", "some-model", python=tmp_path / "nothing")
    with pytest.raises(EngineNotPossible, match="runs on no Python"):
        plan_launch("ollama", "some-model", python=sys.executable)


@pytest.mark.parametrize("model", ["--trust-remote-code", "-x", "a b", "a;b", "\0", "org/$(id)"])
def test_a_model_that_could_be_read_as_something_else_is_refused(vllm_program: Path, model: str) -> None:
    """A model is a path that is there or one plain word."""
    with pytest.raises(EngineNotPossible, match="model must be one plain word"):
        plan_launch("vllm", model)


def test_ports_and_names_are_checked(vllm_program: Path) -> None:
    """Before anything is started."""
    for wrong in (0, 65_536, True):
        with pytest.raises(EngineNotPossible, match="port must be 1 to 65535"):
            plan_launch("vllm", "m", port=wrong)
    for wrong_name in ("a/b", "a:b", "-a", ".a", "a b"):
        with pytest.raises(EngineNotPossible, match="cannot name an endpoint"):
            plan_launch("vllm", "m", name=wrong_name)


def test_a_file_is_a_model_of_llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF on this machine goes behind --model, a repository behind --hf-repo."""
    monkeypatch.setattr("nbllm.engines.plan._command", lambda *_: ("llama-server",))
    file = tmp_path / "Qwen2.5 0.5B.gguf"
    file.write_bytes(b"GGUF")
    argv = plan_launch("llama", str(file)).argv(1)
    assert argv[1:5] == ["--model", str(file.resolve()), "--alias", "Qwen2.5-0.5B"]
    assert plan_launch("llama", "org/m-GGUF:Q4_K_M").argv(1)[1:5] == ["--hf-repo", "org/m-GGUF:Q4_K_M", "--alias", "m-GGUF"]


def test_names_that_a_model_gets() -> None:
    """Its last part, its id and its family, each once."""
    assert names_for("Qwen/Qwen2.5-0.5B-Instruct", None) == ("Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "qwen")
    assert names_for("gpt2", None) == ("gpt2", "gpt")


@given(st.text(max_size=50).filter(lambda text: "\0" not in text))
def test_no_name_of_a_folder_becomes_a_flag(name: str) -> None:
    """Whatever a folder is called, the server's name for it is a plain word."""
    for served in names_for("x", Path("/models") / name.replace("/", "_")):
        assert served
        assert not served.startswith("-")
        assert " " not in served


def test_the_identity_is_what_answers_depend_on(tmp_path: Path) -> None:
    """Another model, revision, quantization or changed template is another identity; memory, port and batch are not."""
    none = ModelFiles(None, {}, None)
    template = tmp_path / "t.jinja"
    template.write_text("a")

    def identity(target: str = "m", files: ModelFiles = none, **options: object) -> str:
        return identity_of(VLLM, target, files, choose(VLLM, options))

    plain = identity()
    assert plain == "engine:vllm:m@"
    assert identity(max_num_seqs=4, gpu_memory_utilization=0.5) == plain
    first = identity(chat_template=str(template))
    template.write_text("another")
    different = {
        plain, identity("n"), identity(revision="abc"), identity(quantization="fp8"), first, identity(chat_template=str(template)),
        identity(files=ModelFiles(None, {}, None, "f1")), identity(files=ModelFiles(None, {}, None, "f2")),
    }  # fmt: skip
    assert len(different) == 8
    assert len(identity("m" * 5000)) < 500


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out_of_memory"),
        ("ValueError: No available memory for the cache blocks.", "out_of_memory"),
        ("ValueError: Free memory on device (10/23 GiB) is less than desired GPU memory utilization (0.92)", "out_of_memory"),
        (
            "Available memory on node 0 (21.1/23.5 GiB) on startup is less than desired CPU memory utilization (0.92)",
            "out_of_memory",
        ),
        ("OSError: [Errno 98] Address already in use", "port_taken"),
        ("start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "port_taken"),
        ("OSError: org/nothing is not a local folder and is not a valid model identifier listed on the hub", "no_such_model"),
        ("llama_model_load: error: failed to open GGUF file 'x.gguf'", "no_such_model"),
        ("Cannot access gated repo for url", "gated"),
        ("ValueError: User-specified max_model_len (99) is greater than the derived max_model_len", "too_long"),
        ("RuntimeError: Failed to infer device type", "no_gpu"),
        ("Please pass the argument `trust_remote_code=True` to allow custom code to be run.", "trust_remote_code"),
        ("api_server.py: error: unrecognized arguments: --foo", "bad_option"),
        ("ModuleNotFoundError: No module named 'vllm._C'", "incomplete"),
        ("Segmentation fault", "unknown"),
    ],
)
def test_the_engines_own_words_are_understood(line: str, code: str) -> None:
    """The telling line is found among others and shown as it is."""
    reason = reason_of(["INFO starting", line, "INFO bye"], 1)
    assert reason.code == code
    assert line in reason.lines
    assert bool(reason.hint) == (code != "unknown")


def test_free_memory_is_named_and_not_the_line_that_points_at_it() -> None:
    """Of a vLLM on a CPU the cause is told, with what to do, and not "see stack trace for root cause"."""
    cause = "ValueError: Available memory on node 0 (21.12/23.54 GiB) on startup is less than desired CPU memory utilization (0.92)"
    last = (
        "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
    )
    reason = reason_of([f"(Worker pid=7) ERROR 11-22 08:00:00 [multiproc.py:1] {cause}", last], 1)
    assert reason.lines == (cause,)
    assert "--gpu-memory-utilization" in reason.hint
    assert reason_of([f"ERROR {last}", "RuntimeError: the cause"], 1).lines == ("RuntimeError: the cause",)


@given(st.lists(st.text(max_size=400), max_size=60), st.one_of(st.none(), st.integers(-64, 255)))
def test_a_reason_is_always_a_few_short_lines(lines: list[str], exit_code: int | None) -> None:
    """Whatever the log holds."""
    reason = reason_of(lines, exit_code)
    assert len(reason.lines) <= 4
    assert all(len(line) <= 240 for line in reason.lines)


PAGE = """# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b{c"} 2.0
vllm:num_requests_running{engine="1",model_name="x"} 1.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.25
vllm:generation_tokens_total 1.2e+03 1700000000
broken{ 3
nan_one NaN
"""


def test_prometheus_pages_are_read() -> None:
    """Counts are summed over engine cores, shares averaged, what is missing stays unknown."""
    found = metrics_of(PAGE, VLLM.metrics)
    assert (found.running, found.kv_cache_use, found.output_tokens, found.waiting) == (3.0, 0.375, 1200.0, None)
    assert "nan_one" not in samples(PAGE)
    assert metrics_of(PAGE, MetricNames()).running is None


@given(st.text(max_size=300))
def test_any_page_is_read_without_raising(page: str) -> None:
    """A server may send anything."""
    metrics_of(page, VLLM.metrics)


def test_pace_and_dollars() -> None:
    """1,000 tokens in 10 s at $3.60 an hour: 100 tokens/s, $10 per million; a restarted count begins anew."""
    pace = Pace()
    assert pace.tokens_per_s() is None
    pace.add(0.0, 0.0)
    pace.add(10.0, 1000.0)
    assert pace.tokens_per_s() == 100.0
    assert usd_per_mtok(Decimal("3.60"), 100.0) == Decimal(10)
    assert usd_per_mtok(Decimal("3.60"), 0.0) is None
    assert usd_per_mtok(None, 100.0) is None
    pace.add(60.0, 1000.0)
    assert pace.tokens_per_s() == 0.0
    pace.add(61.0, 5.0)
    assert pace.tokens_per_s() is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("~no-such-user-at-all/model", "There is no file or folder '~no-such-user-at-all/model'"),
        ("/no/such/model", "There is no file or folder '/no/such/model'"),
        ("./model", "There is no file or folder './model'"),
        ("a" * 5000, "model must be one plain word"),
        ("", "No model is named"),
        ("  ", "No model is named"),
    ],
)
def test_a_model_that_is_nowhere_is_said(vllm_program: Path, model: str, said: str) -> None:
    """A path is called a path; no name makes a traceback."""
    with pytest.raises(EngineNotPossible, match=re.escape(said)):
        plan_launch("vllm", model)


@pytest.mark.parametrize("file", ["~no-such-user-at-all/t.jinja", "/no/such", "a" * 5000])
def test_a_file_of_an_option_that_is_nowhere_is_said(vllm_program: Path, file: str) -> None:
    """The same for options that name files."""
    with pytest.raises(EngineNotPossible, match="there is no file or folder"):
        plan_launch("vllm", "m", {"chat_template": file})


def test_a_folder_in_the_place_of_its_python_names_the_python(tmp_path: Path) -> None:
    """Whoever names the environment is told the program in it; the simulated server has one Python only."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(EngineNotPossible, match="There is no Python at") as caught:
        plan_launch("vllm", "m", python=tmp_path / "env")
    assert str(tmp_path / "env" / "bin" / "python") in caught.value.hint
    with pytest.raises(EngineNotPossible, match="runs on this Python only"):
        plan_launch("sim", "large", python=sys.executable)


def test_attach_is_no_engine() -> None:
    """Whoever starts `attach` is told how it is written."""
    with pytest.raises(EngineNotPossible, match="is not started") as caught:
        plan_launch("attach", "http://127.0.0.1:8000/v1")
    assert "%serve attach URL" in caught.value.hint


def test_paths_of_other_letters_give_readable_names(vllm_program: Path, tmp_path: Path) -> None:
    """A folder's name with spaces and accents: a name to ask by, and the path as it is."""
    folder = tmp_path / "mö del s" / "tiny ünï"
    folder.mkdir(parents=True)
    assert names_for(str(folder), folder) == ("tiny-uni", "tiny")
    assert names_for(str(tmp_path / "模型"), tmp_path / "模型") == ("model",)
    assert plan_launch("vllm", str(folder)).argv(1)[2] == str(folder)
