"""What this machine knows of a model before it is started: its folder, its config.json, the bytes of its weights, a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbllm.errors import EngineNotPossible

_WEIGHTS = (".safetensors", ".bin", ".gguf")
_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """path: the folder or file, None when the model is not on this machine. config: its config.json, {} when there is none.

    weights_bytes: size of the weights on disk, None when they are not all here. fingerprint: of names, sizes and times of a local
    folder's files, "" for a model of a hub, which its id and revision name.
    """

    path: Path | None
    config: Mapping[str, Any]
    weights_bytes: int | None
    fingerprint: str = ""


def model_files(model: str, revision: str | None = None, environ: Mapping[str, str] = os.environ) -> ModelFiles:
    """Look for a model: as a path, then in the hub's cache. Reads the disk, sends nothing."""
    here = local(model)
    if here is None:
        snapshot = _snapshot(model, revision, environ)
        return ModelFiles(None, {}, None) if snapshot is None else ModelFiles(None, _config(snapshot), _weights(snapshot))
    if here.is_file():
        return ModelFiles(here, {}, here.stat().st_size, _fingerprint([here]))
    try:
        files = sorted(path for path in here.iterdir() if path.is_file())
    except OSError as error:
        raise EngineNotPossible(f"{here} cannot be read: {error.strerror}. Nothing was started.") from None
    return ModelFiles(here, _config(here), _weights(here), _fingerprint(files))


def local(text: str) -> Path | None:
    """Return the absolute path of the file or folder that a text names, ~ and ~user understood; None when there is none."""
    if not text or "\0" in text:
        return None
    try:
        path = Path(text).expanduser().resolve()
        return path if path.is_file() or path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user
        return None


def parameters_named(model: str) -> float | None:
    """Return the number of parameters that a model's name claims ("Qwen2.5-0.5B-Instruct", "Mixtral-8x7B"), None without one."""
    found = _PARAMETERS.search(model.rpartition("/")[2])
    if found is None:
        return None
    times, count, unit = found.groups()
    return int(times or 1) * float(count) * (1e9 if unit in "bB" else 1e6)


def _snapshot(model: str, revision: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return a model's folder in the hub's cache (layout and variables: huggingface_hub), None when it is not in it."""
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface")
    cache = Path(environ.get("HF_HUB_CACHE") or Path(home).expanduser() / "hub").expanduser()
    folder = cache / f"models--{model.replace('/', '--')}"
    name = revision or "main"
    try:
        commit = (folder / "refs" / name).read_text("utf-8").strip()
    except (OSError, ValueError):
        commit = name
    return local(str(folder / "snapshots" / commit))


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _weights(folder: Path) -> int | None:
    """Return the bytes of the weights: what the index says, else the files of the first kind that is there."""
    for index in folder.glob("*.index.json"):
        try:
            size = json.loads(index.read_text("utf-8"))["metadata"]["total_size"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(size, int) and size > 0:
            return size
    for ending in _WEIGHTS:
        sizes = [path.stat().st_size for path in folder.glob(f"*{ending}") if path.exists()]
        if sizes:
            return sum(sizes)
    return None


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
