"""What holds for all tests."""

from __future__ import annotations

import copy
import functools
import gc
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from nbllm.core.quick_jsonschema import import_jsonschema
from nbllm.testing import run_virtual
from tests.redis_server import RedisServer, running_redis
from tests.warm_python import WarmPython

# Limits in wall-clock time for one generated case say more about the machine than about the code.
# The same cases each time: a change is not refused for what another one did. `make test ARGS=--hypothesis-profile=explore` draws
# new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nbllm", settings.get_profile("explore"), derandomize=True)
settings.load_profile("nbllm")

# There are more test processes than processors. Threads of BLAS in each of them wait for one another in a busy loop: ten times the
# processor time, measured on a calibration. Read when numpy is first loaded, which is after this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


import_jsonschema()  # before anybody else does

# Some thousand modules and tests are made at the start of each process, none of them garbage: looking through them again and again
# took half the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, what the tests are made of left out."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Return the processes of `-n auto`: many tests wait for servers, kernels and kills, so one more than there are processors."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="module", autouse=True)
def only_new_objects_are_searched() -> None:
    """Leave what was loaded before the tests of a file out of garbage collection.

    Hundreds of tests collect garbage to see whether anything was left over. With LiteLLM and matplotlib loaded each collection
    would look through some millions of objects that are no business of these tests: 0.3 s a time, half the time of all tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def indexes_are_waited_for() -> Iterator[None]:
    """Wait for an index to be loaded for as long as it takes: how fast a busy machine starts a thread is no promise of nbllm's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbllm.storage.open._PATIENCE_S", 60.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def threads_are_waited_for() -> Iterator[None]:
    """Wait for threads in virtual time for as long as a machine that stalls takes, unless a test says how long itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run_virtual.__kwdefaults__, "patience_s", 30.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def packages_are_looked_up_once() -> Iterator[None]:
    """Ask for what is installed on a path once: an export does, and to read all of it is most of the time that it takes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("packages_distributions", "requires", "version"):
            patch.setattr(importlib.metadata, name, _once_for_each_path(getattr(importlib.metadata, name)))
        yield


def _once_for_each_path(function: Callable[..., Any]) -> Callable[..., Any]:
    found = functools.cache(lambda _, *arguments: function(*arguments))
    return lambda *arguments: copy.copy(found(tuple(sys.path), *arguments))


@pytest.fixture(scope="session", autouse=True)
def clean_processes_are_forked() -> Iterator[None]:
    """Fork what a proof and a replay run in from a Python that has imported it all (tests/warm_python.py)."""
    if not sys.platform.startswith("linux"):
        yield
        return
    with WarmPython() as python, pytest.MonkeyPatch.context() as patch:
        for module in ("nbllm.export.proof", "nbllm.service.replay"):
            if module in sys.modules:
                patch.setattr(f"{module}.subprocess", python)
        yield


@pytest.fixture
def real_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs and replays of this test start new Pythons, as they do for users."""
    monkeypatch.setattr(WarmPython, "run", staticmethod(subprocess.run))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for all tests of a process; without one on PATH they are skipped, and counted."""
    with running_redis() as server:
        yield server
