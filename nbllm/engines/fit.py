"""Whether a launch fits on this machine: the model's files, the memory that is here, and the arithmetic of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.engines.catalog import EngineKind
from nbllm.engines.gpu import Gpu
from nbllm.engines.model_files import ModelFiles, parameters_named
from nbllm.engines.shapes import ModelShape, shape_of
from nbllm.engines.sizing import OVERHEAD_BYTES, UTILISATION, Sizing, gb, size
from nbllm.errors import EngineDoesNotFit

_WEIGHT_BITS = {"awq": 4.0, "awq_marlin": 4.0, "gptq": 4.0, "gptq_marlin": 4.0, "bitsandbytes": 4.5, "fp8": 8.0, "mxfp4": 4.25}
_GIB = 1024.0**3
_NO_GPU = (
    "No NVIDIA GPU was found here. vLLM and SGLang need one, or a build for CPUs (vLLM has one); llama-server and Ollama work "
    "without; `%serve start sim large` works everywhere and is simulated."
)


@dataclass(frozen=True, slots=True)
class Fit:
    """sizing: the arithmetic, None where it cannot be made. notes: what a person should know. problem, hint: why it cannot fit."""

    sizing: Sizing | None
    notes: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""

    def checked(self, *, force: bool) -> Fit:
        """Return it, after a check unless it is launched by force."""
        if not force:
            self.check()
        return self

    def check(self) -> None:
        """Raise EngineDoesNotFit with the arithmetic when it cannot fit."""
        if self.problem:
            table = f"\n{self.sizing.table()}" if self.sizing else ""
            raise EngineDoesNotFit(f"{self.problem} Nothing was started.{table}", hint=self.hint)


def fit(
    kind: EngineKind,
    model: str,
    values: Mapping[str, Any],
    files: ModelFiles,
    gpus: list[Gpu] | None,
    machine_bytes: int | None,
    machine_free_bytes: int | None = None,
) -> Fit:
    """Return whether a launch with these option values fits. An engine that takes memory as it goes is not sized.

    machine_bytes, machine_free_bytes: this machine's memory, and what could be taken of it now; None where that is not known.
    """
    if not kind.sized:
        return Fit(None)
    notes = () if gpus else (_NO_GPU,)
    wanted = values.get("tensor_parallel_size", 1) * values.get("pipeline_parallel_size", 1)
    if gpus and wanted > len(gpus):
        problem = f"The launch asks for {wanted} GPUs and {len(gpus)} can be seen here."
        return Fit(None, notes, problem, f"Use tensor_parallel_size={len(gpus)}, or look at CUDA_VISIBLE_DEVICES.")
    taken = gpus[:wanted] if gpus else []
    memory_bytes = float(min(gpu.total_bytes for gpu in taken) * wanted) if taken else float(machine_bytes or 0)
    if not memory_bytes:
        return Fit(None, (*notes, "How much memory there is cannot be told here: whether the model fits was not checked."))
    used = float(values.get("gpu_memory_utilization", UTILISATION))
    shape = shape_of(files.config)
    if shape is None:
        return _by_name(model, files, memory_bytes * used, notes)
    sizing = _sized(shape, values, files, memory_bytes, taken)
    if not sizing.fits:
        return Fit(sizing, notes, _problem(model, sizing), _hint(sizing))
    # On a CPU vLLM takes its share at once, too, unless its KV cache has a room of its own.
    all_at_once = not taken and kind.name == "vllm" and "cpu_kvcache_gb" not in values
    free = float(machine_free_bytes) if machine_free_bytes is not None and all_at_once else memory_bytes
    short = _short_of("This machine", free, memory_bytes, used)
    return Fit(sizing, notes, *short) if short else _beside_others(sizing, taken, used, notes)


def _sized(shape: ModelShape, values: Mapping[str, Any], files: ModelFiles, memory_bytes: float, taken: list[Gpu]) -> Sizing:
    """Return the arithmetic for the options of a launch. taken: the GPUs that share the model, none for this machine's memory."""
    times = f"{len(taken)} x " if len(taken) > 1 else ""
    return size(
        shape,
        memory_bytes=memory_bytes,
        memory_name=times + taken[0].name if taken else "this machine's memory",
        weights_bytes=files.weights_bytes,
        dtype=values.get("dtype"),
        kv_dtype=values.get("kv_cache_dtype"),
        weight_bits=_WEIGHT_BITS.get(values.get("quantization", "")),
        utilisation=values.get("gpu_memory_utilization"),
        max_model_len=values.get("max_model_len"),
        # Only a build for CPUs keeps its KV cache in a room of its own; GiB, as it counts them.
        kv_limit_bytes=values["cpu_kvcache_gb"] * _GIB if "cpu_kvcache_gb" in values and not taken else None,
        gpus=max(1, len(taken)),
        sharing_layers=values.get("tensor_parallel_size", 1),
    )


def _problem(model: str, sizing: Sizing) -> str:
    if not sizing.kv_tokens:
        need = gb(sizing.weights_bytes + sizing.overhead_bytes)
        return f"{model} does not fit: weights and overhead need {need} of the {gb(sizing.room_bytes)} that the engine may take."
    if sizing.limit_too_large:
        return f"A KV cache of {gb(sizing.kv_limit_bytes or 0.0)} does not fit: {gb(sizing.left_bytes)} are left for it."
    return (
        f"{model} does not fit with max-model-len {sizing.max_model_len:,}: the KV cache has room for {sizing.kv_tokens:,} tokens."
    )


def _hint(sizing: Sizing) -> str:
    if sizing.kv_tokens and sizing.limit_too_large:
        return f"Use --cpu-kvcache-gb {max(1, int(sizing.left_bytes // _GIB))}, or --force to try all the same."
    if sizing.kv_tokens:
        return f"Use --max-model-len {sizing.longest_max_model_len}, or --force to try all the same."
    return "Take a smaller or quantized model (--quantization), more GPUs (--tensor-parallel-size), or --force to try all the same."


def _beside_others(sizing: Sizing, gpus: list[Gpu], used: float, notes: tuple[str, ...]) -> Fit:
    """Return the fit, with a problem when another process holds memory that the engine would take: it takes its share at once."""
    for gpu in gpus:
        short = _short_of(f"GPU {gpu.index} ({gpu.name})", gpu.free_bytes, gpu.total_bytes, used)
        if short:
            return Fit(sizing, notes, *short)
    return Fit(sizing, notes)


def _short_of(what: str, free_bytes: float, total_bytes: float, used: float) -> tuple[str, ...]:
    """Return the problem and the hint where less is free than the engine would take at once, else nothing."""
    if free_bytes >= total_bytes * used:
        return ()
    share = max(0.0, free_bytes / total_bytes - 0.01)
    problem = (
        f"{what} has {gb(free_bytes)} free, and the engine would take {gb(total_bytes * used)} ({used:.0%} of it): another process "
        "uses it."
    )
    return problem, f"Use --gpu-memory-utilization {share:.2f}, or end the other process."


def _by_name(model: str, files: ModelFiles, room_bytes: float, notes: tuple[str, ...]) -> Fit:
    """Return what can be said of a model whose config.json is not on this machine, or does not say enough."""
    if files.path is not None or files.config:
        where = f"{files.path or model} has no config.json that says how large the model is"
        return Fit(None, (*notes, f"{where}: whether it fits was not checked."))
    parameters = parameters_named(model)
    if parameters is None:
        return Fit(None, (*notes, f"The config.json of {model} is not on this machine yet: whether it fits was not checked."))
    weights = parameters * 2
    said = f"The config.json of {model} is not on this machine yet. By its name the weights take about {gb(weights)} in 16 bits"
    # A name does not say whether the weights are quantized: down to four bits they may be.
    if parameters * 0.5 + OVERHEAD_BYTES > room_bytes:
        return Fit(
            None,
            notes,
            f"{said}, and even in 4 bits they would not fit into {gb(room_bytes)}.",
            "Take a smaller model, more GPUs (--tensor-parallel-size), or --force to try all the same.",
        )
    return Fit(None, (*notes, f"{said}; the engine may take {gb(room_bytes)}. The KV cache was not counted."))
