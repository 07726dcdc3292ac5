"""The engines: one row says how each is found, started, asked whether it is ready, and measured.

Command lines and names of metrics are those of vLLM 0.32, llama.cpp's llama-server, Ollama 0.5 and later, and SGLang 0.5. Those of
vLLM, llama-server and the simulated server are held by tests against the real thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nbllm.errors import EngineNotPossible
from nbllm.settings.suggest import did_you_mean

_INSTEAD = "Without it: `%serve start sim large` serves simulated models, `%serve attach URL` takes any server that already runs."


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNames:
    """What an engine's Prometheus page calls the numbers; "" where it has none. kv_cache_use is a share, 0 to 1.

    work: further counts that move while anything is worked on, in the middle of a long prompt too.
    """

    running: str = ""
    waiting: str = ""
    kv_cache_use: str = ""
    output_tokens: str = ""
    input_tokens: str = ""
    work: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One engine.

    endpoint: the endpoint's name. program: looked for on PATH. module: run with `python -m` where a Python is named; package: what
    that Python must have. serve: words after the program (not after the module). arguments: in them {model}, {name}, {port} are
    filled in, each word on its own. several_names: takes more than one name for the model. environment: {port} is filled in.
    key_env: variable that takes the key, "" for none; key_file: (flag, text with {key}) for an engine that takes its key from a
    file. health: path that answers 200 when it lives. first_answer_s: how long it may then take until it has completed one token:
    an engine that is wedged is seen within 30 s.
    """

    name: str
    title: str
    endpoint: str
    install: str
    program: str = ""
    module: str = ""
    package: str = ""
    serve: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    model_file: tuple[str, ...] = ()
    """Used instead of the words for the model when it is a file on this machine."""
    model_words: tuple[str, ...] = ()
    program_model: tuple[str, ...] = ()
    """Used instead when the program runs and not the module."""
    several_names: bool = False
    own_names: bool = False
    """It serves models under their own names: the model's id is the name."""
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    key_env: str = ""
    key_file: tuple[str, str] | None = None
    health: str = "/health"
    first_answer_s: float = 25.0
    simulated: bool = False
    idle_probe: bool = True
    """Whether an idle engine may be asked for a token now and then, to see that it still answers. Ollama would never unload."""
    metrics: MetricNames = MetricNames()
    sized: bool = False
    """Loads the whole model and its cache into the GPU's memory before it is ready, so that it can be said whether they fit."""


_QUIET = {"DO_NOT_TRACK": "1"}
_LISTEN = ("--host", "127.0.0.1", "--port", "{port}")
_OWN_ENVIRONMENT = f"Install it in an environment of its own (pip install {{}}) and name that Python with --python. {_INSTEAD}"


def _metrics(prefix: str, running: str, waiting: str, kv_cache_use: str, output: str, *work: str) -> MetricNames:
    """Return the names of an engine's page, which all begin alike; each counts prompt_tokens_total."""
    return MetricNames(
        running=prefix + running,
        waiting=prefix + waiting,
        kv_cache_use=prefix + kv_cache_use,
        output_tokens=prefix + output,
        input_tokens=f"{prefix}prompt_tokens_total",
        work=tuple(prefix + name for name in work),
    )


_VLLM_METRICS = _metrics(
    "vllm:",
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "generation_tokens_total",
    # A prompt is counted when all of it is read; steps and blocks of the cache are, chunk by chunk.
    "iteration_tokens_total_count",
)

ENGINES: Mapping[str, EngineKind] = {
    kind.name: kind
    for kind in (
        EngineKind(
            name="vllm",
            title="vLLM",
            endpoint="vllm",
            install=_OWN_ENVIRONMENT.format("vllm"),
            program="vllm",
            module="vllm.entrypoints.openai.api_server",
            package="vllm",
            serve=("serve",),
            program_model=("{model}",),
            model_words=("--model", "{model}"),
            arguments=("--served-model-name", "{name}", *_LISTEN),
            several_names=True,
            environment={**_QUIET, "VLLM_NO_USAGE_STATS": "1"},
            key_env="VLLM_API_KEY",
            metrics=_VLLM_METRICS,
            sized=True,
        ),
        EngineKind(
            name="llama-server",
            title="llama.cpp's llama-server",
            endpoint="llama",
            install=f"Install llama.cpp so that llama-server is on PATH. {_INSTEAD}",
            program="llama-server",
            model_words=("--hf-repo", "{model}"),
            model_file=("--model", "{model}"),
            arguments=("--alias", "{name}", *_LISTEN, "--metrics"),
            key_env="LLAMA_API_KEY",
            metrics=_metrics(
                "llamacpp:",
                "requests_processing",
                "requests_deferred",
                "kv_cache_usage_ratio",
                "tokens_predicted_total",
                "n_decode_total",
            ),
        ),
        EngineKind(
            name="ollama",
            title="Ollama",
            endpoint="ollama",
            install=f"Install Ollama so that ollama is on PATH, and pull the model first (ollama pull MODEL). {_INSTEAD}",
            program="ollama",
            serve=("serve",),
            own_names=True,
            environment={"OLLAMA_HOST": "127.0.0.1:{port}"},
            health="/api/version",
            # It loads a model with the first question.
            first_answer_s=600.0,
            idle_probe=False,
        ),
        EngineKind(
            name="sglang",
            title="SGLang",
            endpoint="sglang",
            install=_OWN_ENVIRONMENT.format("sglang"),
            module="sglang.launch_server",
            package="sglang",
            model_words=("--model-path", "{model}"),
            arguments=("--served-model-name", "{name}", *_LISTEN, "--enable-metrics"),
            environment=_QUIET,
            # It has no variable for its key, and a command line can be read by other users of the machine.
            key_file=("--config", 'api-key: "{key}"\n'),
            metrics=_metrics(
                "sglang:", "num_running_reqs", "num_queue_reqs", "token_usage", "generation_tokens_total", "num_used_tokens"
            ),
            sized=True,
        ),
        EngineKind(
            name="sim-server",
            title="Simulated server",
            endpoint="sim-server",
            install="It is part of nbllm.",
            module="nbllm.engines.sim_server",
            package="nbllm",
            simulated=True,
            model_words=("--model", "{model}"),
            arguments=("--name", "{name}", "--port", "{port}"),
            key_env="NBLLM_SIM_SERVER_KEY",
            metrics=_VLLM_METRICS,
        ),
    )
}
"""By name. A server that already runs is no row: see nbllm.engines.attach."""

_MEANT = {"sim": "sim-server", "llama": "llama-server", "llama.cpp": "llama-server", "llamacpp": "llama-server"}


def engine_kind(name: str) -> EngineKind:
    """Return the row of that name, case and a few other names understood. Raises EngineNotPossible with what there is."""
    folded = name.strip().casefold()
    kind = ENGINES.get(_MEANT.get(folded, folded))
    if folded == "attach":
        raise EngineNotPossible(
            "A server that runs already is not started.",
            hint="Take it with %serve attach URL, in a script with nbllm.engines.attach(URL).",
        )
    if kind is None:
        raise EngineNotPossible(f"There is no engine {name!r:.60}.", hint=did_you_mean(name, (*ENGINES, "attach")))
    return kind
