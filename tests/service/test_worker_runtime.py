"""The app inside a worker process."""

from __future__ import annotations

import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from nbllm.errors import StorageError
from nbllm.service.app import create_app
from nbllm.service.context import Service
from nbllm.service.loading import load_app
from nbllm.service.worker_runtime import Runtime
from tests.client.helpers import until


class Hands:
    """Counts the jobs that it is told to run."""

    def __init__(self) -> None:
        self.ran = 0
        self.stopped = False
        self.trouble: Exception | None = None

    async def run_next(self) -> None:
        self.ran += 1

    async def stop(self) -> None:
        self.stopped = True
        if self.trouble is not None:
            raise self.trouble


def _app(folder: Path, hands: Hands, troubles: list[Exception]) -> FastAPI:
    """Return a whole app whose last part opens with the next of these troubles, then without."""
    (folder / "settings.toml").write_text(f"model = 'sim/small'\nhome = '{folder / 'home'}'\n")
    app = create_app(settings=folder / "settings.toml")
    service: Service = app.state.service

    @asynccontextmanager
    async def part(service: Service) -> AsyncIterator[None]:
        if troubles:
            raise troubles.pop(0)
        yield

    service.parts.append(part)
    service.jobs = hands  # type: ignore[assignment]  # only what a worker asks of it
    return app


@pytest.mark.parametrize("trouble", [StorageError("Redis did not answer."), OSError("disk")])
def test_an_app_that_could_not_be_opened_is_opened_anew_by_the_next_job(tmp_path: Path, trouble: Exception) -> None:
    """Trouble while a process opens its app (a Redis that is held up) costs that job's turn, not the process: the next job runs."""
    hands, troubles = Hands(), [trouble, trouble]

    def load() -> FastAPI:
        return _app(tmp_path, hands, troubles)

    runtime = Runtime(load(), load, multiprocessing.get_context().Event())
    try:
        for _ in range(2):
            if isinstance(trouble, StorageError):
                runtime.run_next()  # said in the log; the sweep tells of the job again
            else:
                with pytest.raises(OSError, match="disk"):
                    runtime.run_next()
        assert hands.ran == 0
        runtime.run_next()
        runtime.run_next()
        assert hands.ran == 2
    finally:
        runtime.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_app_whose_loop_broke_is_opened_anew_by_the_next_job(tmp_path: Path) -> None:
    """A worker whose service ended by an error of its own takes the next job with another one, instead of failing for ever."""
    hands = Hands()

    def load() -> FastAPI:
        return _app(tmp_path, hands, [])

    over = multiprocessing.get_context().Event()
    runtime = Runtime(load(), load, over)
    try:
        runtime.run_next()
        hands.trouble = OSError("disk")
        over.set()
        life = runtime._life
        assert life is not None
        until(lambda: life.failed)
        over.clear()
        hands.trouble = None
        runtime.run_next()
        assert hands.ran == 2
    finally:
        runtime.close()


def test_an_app_that_is_loaded_again_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was closed is not used again: loading a folder's app twice gives two."""
    (tmp_path / "settings.toml").write_text(f"model = 'sim/small'\nhome = '{tmp_path / 'home'}'\n")
    (tmp_path / "app.py").write_text(
        "from pathlib import Path\nfrom nbllm.service import create_app\n"
        "app = create_app(flows=[], settings=Path(__file__).with_name('settings.toml'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "app", raising=False)
    first, second = load_app(tmp_path), load_app(tmp_path)
    assert first is not second
    assert first.state.service.client is not second.state.service.client
