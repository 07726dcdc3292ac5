"""Questions into vectors."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nbllm import errors
from nbllm.pipeline.embedding import Embedding
from nbllm.pipeline.workers import Workers
from nbllm.providers import local_embedder
from nbllm.testing import run_virtual
from tests.pipeline.making import request, rung


class Helping:
    """Embeds after a while, with a vector that says how often it was asked. error: raised instead."""

    def __init__(self, takes_s: float = 0.1, *, error: Exception | None = None, vector: Any = None) -> None:
        self.asked: list[str] = []
        self._takes_s = takes_s
        self._error = error
        self._vector = vector

    async def embed(
        self, request: Any, model_id: str, texts: list[str], *, at_most_s: float, cached: bool = False
    ) -> NDArray[np.float32]:
        self.asked += texts
        await asyncio.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        return np.array([[3.0, 4.0 * len(self.asked)] if self._vector is None else self._vector], dtype=np.float32)


def embedding(helping: Any) -> Embedding:
    return Embedding(helping, Workers(lambda: ThreadPoolExecutor(2)), lambda name: rung(*name.split("/")))


def test_equal_texts_under_way_share_one_embedding() -> None:
    """A hundred callers, one request; later ones find it kept; another text, or another model, is asked for."""

    async def run() -> None:
        helping = Helping()
        embed = embedding(helping)
        vectors = await asyncio.gather(*(embed.vector(request(), "lab/e", "hello", at_most_s=1) for _ in range(100)))
        assert helping.asked == ["hello"]
        assert all((v == vectors[0]).all() for v in vectors)
        assert vectors[0].tolist() == [3.0, 4.0]
        assert (await embed.unit(request(), "lab/e", "hello", at_most_s=1)).tolist() == pytest.approx([0.6, 0.8])
        await embed.vector(request(), "lab/e", "hello", at_most_s=1)
        assert helping.asked == ["hello"]
        await embed.vector(request(), "lab/e", "other", at_most_s=1)
        await embed.vector(request(), "lab/e2", "hello", at_most_s=1)
        assert helping.asked == ["hello", "other", "hello"]

    run_virtual(run())


def test_a_slow_embedder_is_a_timeout_and_its_followers_try_themselves() -> None:
    """Who waits longest still gets a vector when the first one gave up."""

    async def run() -> None:
        helping = Helping(takes_s=0.4)
        embed = embedding(helping)
        first = asyncio.ensure_future(embed.vector(request(), "lab/e", "hello", at_most_s=0.3))
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(embed.vector(request(), "lab/e", "hello", at_most_s=2))
        with pytest.raises(errors.DeadlineExceeded):
            await first
        assert (await second).shape == (2,)
        assert helping.asked == ["hello", "hello"]

    run_virtual(run())


def test_an_error_is_everyones() -> None:
    """A request that failed is not sent again by each who waited for it, and not remembered either."""

    async def run() -> None:
        helping = Helping(error=errors.BadAnswer("no"))
        embed = embedding(helping)
        found = await asyncio.gather(
            *(embed.vector(request(), "lab/e", "hello", at_most_s=1) for _ in range(5)), return_exceptions=True
        )
        assert [type(one) for one in found] == [errors.BadAnswer] * 5
        assert helping.asked == ["hello"]
        with pytest.raises(errors.BadAnswer):
            await embed.vector(request(), "lab/e", "hello", at_most_s=1)
        assert helping.asked == ["hello"] * 2

    run_virtual(run())


@pytest.mark.parametrize("vector", [[0.0, 0.0], [], [np.nan, 1.0], [np.inf, 0.0], [[1.0], [2.0]]])
def test_what_has_no_direction_is_no_vector(vector: Any) -> None:
    """Zeros, numbers that are none, wrong shapes: a clear error, which the stage takes for a miss."""

    async def run() -> None:
        with pytest.raises(errors.BadAnswer, match="zeros"):
            await embedding(Helping(vector=vector)).vector(request(), "lab/e", "hello", at_most_s=1)

    run_virtual(run())


def test_each_embedder_has_its_own_name() -> None:
    """Vectors of two embedders are never in one partition: the name holds endpoint, model and version."""

    async def run() -> None:
        embed = embedding(Helping())
        names = [await embed.identity(one) for one in ("lexical", "lab/e", "lab/f", "other/e")]
        assert len(set(names)) == 4
        assert names[0] == "lexical/1"
        assert (await embed.vector(request(), "lexical", "hello", at_most_s=1)).shape == (384,)

    run_virtual(run())


class Package:
    """Stands for sentence_transformers and model2vec, neither of which need be installed."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.StaticModel = self

    def SentenceTransformer(self, folder: str, *, local_files_only: bool) -> Package:  # noqa: N802 - the package's name
        assert local_files_only
        self.loaded.append(folder)
        return self

    def from_pretrained(self, folder: str) -> Package:
        self.loaded.append("static " + folder)
        return self

    def encode(self, texts: list[str]) -> NDArray[np.float64]:
        return np.array([[float(len(text)), 1.0] for text in texts])


def test_a_local_folder_embeds_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the folder was made for is loaded, once, from the disk alone; another model in the folder has another name."""
    package = Package()
    monkeypatch.setattr(local_embedder, "import_module", lambda _: package)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 5_000_000)
    first = local_embedder.LocalEmbedder(str(tmp_path))
    assert package.loaded == [str(tmp_path)]
    assert first.embed("abc").tolist() == [3.0, 1.0]
    assert first.identity == local_embedder.LocalEmbedder(str(tmp_path)).identity
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4_999_999 + b"y")
    assert first.identity != local_embedder.LocalEmbedder(str(tmp_path)).identity
    (tmp_path / "modules.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "model2vec"}')
    local_embedder.LocalEmbedder(str(tmp_path))
    assert package.loaded[-1] == f"static {tmp_path}"


def test_a_folder_that_cannot_embed_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no model in it, no package for it: each is one sentence with the next step."""
    with pytest.raises(errors.ConfigurationError, match="no folder"):
        local_embedder.LocalEmbedder(str(tmp_path / "none"))
    with pytest.raises(errors.ConfigurationError, match="holds no embedding model"):
        local_embedder.LocalEmbedder(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]")

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(local_embedder, "import_module", missing)
    with pytest.raises(errors.ConfigurationError, match="needs a package") as caught:
        local_embedder.LocalEmbedder(str(tmp_path))
    assert "pip install sentence-transformers" in str(caught.value)


class Loading:
    """A package whose model takes a while to load and then fails at every text."""

    def __init__(self) -> None:
        self.loaded = 0

    def SentenceTransformer(self, folder: str, *, local_files_only: bool) -> Loading:  # noqa: N802 - the package's
        self.loaded += 1
        return self

    def encode(self, texts: list[str]) -> Any:
        raise RuntimeError("out of memory")


def test_a_local_model_is_loaded_once_and_its_failure_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many first questions share one loading; what a library raises is an error that makes a miss, not the call's end."""
    (tmp_path / "modules.json").write_text("[]")
    package = Loading()
    monkeypatch.setattr(local_embedder, "import_module", lambda _: package)

    async def run() -> None:
        with ThreadPoolExecutor(4) as pool:
            embedding = Embedding(Helping(), Workers(lambda: pool), rung)  # type: ignore[arg-type]
            names = await asyncio.gather(*(embedding.identity(f"local:{tmp_path}") for _ in range(5)))
            assert (len(set(names)), package.loaded) == (1, 1)
            with pytest.raises(errors.BadAnswer, match="RuntimeError: out of memory"):
                await embedding.vector(request(), f"local:{tmp_path}", "text", at_most_s=9.0)

    asyncio.run(run())


def test_a_damaged_local_model_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library makes of a damaged folder."""
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setattr(local_embedder, "import_module", lambda _: object())
    with pytest.raises(errors.ConfigurationError, match="cannot be loaded"):
        local_embedder.LocalEmbedder(str(tmp_path))
