"""A folder with an embedding model, run in this process by sentence-transformers or model2vec, whichever it was made for."""

from __future__ import annotations

import threading
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.errors import BadAnswer, ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMED = ("config.json", "modules.json", "config_sentence_transformers.json", "tokenizer.json")
_HASHED_BYTES = 1 << 20


class LocalEmbedder:
    """Embeds with the model of a folder. Nothing is ever downloaded.

    folder: as given. identity: its name and a hash of its files' sizes, beginnings and ends: another model in the same folder has
    another. Raises ConfigurationError: no such folder, no model in it, the package that it needs is not installed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise ConfigurationError(
                f"There is no folder {path} with an embedding model.", hint="semantic_cache.embedder = 'local:/path/to/the/model'"
            )
        self.identity = f"local:{path.name}:{_digest(path)}"
        self._lock = threading.Lock()
        try:
            self._encode = _static(path) if _is_static(path) else _transformer(path)
        except ConfigurationError:
            raise
        except Exception as exc:  # whatever the library makes of a damaged folder
            raise ConfigurationError(f"The model in {path} cannot be loaded ({type(exc).__name__}: {exc}).") from exc

    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text, shape (d,), as the model gives it. Blocks; one at a time. Raises BadAnswer."""
        import numpy as np

        try:
            with self._lock:
                vector: NDArray[np.float32] = np.asarray(self._encode([text]), dtype=np.float32)[0]
        except Exception as exc:
            raise BadAnswer(f"The model in {self.folder} could not embed a question ({type(exc).__name__}: {exc}).") from exc
        return vector


def _is_static(path: Path) -> bool:
    """Whether model2vec made it: a table of token vectors without layers."""
    return not (path / "modules.json").is_file() and (path / "model.safetensors").is_file() and _mentions_model2vec(path)


def _mentions_model2vec(path: Path) -> bool:
    try:
        return "model2vec" in (path / "config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _static(path: Path) -> Any:
    return _package("model2vec", path).StaticModel.from_pretrained(str(path)).encode


def _transformer(path: Path) -> Any:
    if not any((path / name).is_file() for name in _NAMED):
        raise ConfigurationError(
            f"{path} holds no embedding model: neither of {', '.join(_NAMED)} is there.",
            hint="Name the folder that the model was saved to.",
        )
    return _package("sentence_transformers", path).SentenceTransformer(str(path), local_files_only=True).encode


def _package(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError as exc:
        raise ConfigurationError(
            f"The model in {path} needs a package that cannot be imported ({exc}).",
            hint=f"pip install {name.replace('_', '-')}, or name a model id as embedder.",
        ) from None


def _digest(path: Path) -> str:
    digest = sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_HASHED_BYTES))
            if size > 2 * _HASHED_BYTES:
                opened.seek(-_HASHED_BYTES, 2)
                digest.update(opened.read())
    return digest.hexdigest()[:16]
