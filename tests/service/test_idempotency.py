"""Idempotency-Key over HTTP: what came is replayed, nothing runs twice, and what may be tried again is."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from nbllm import errors, flow
from nbllm.errors import StorageError
from nbllm.service import idempotency
from nbllm.service.idempotency_store import SqliteIdempotency
from nbllm.service.ports import Claim
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import until
from tests.service.flow_apps import HANGS, Served, later, raises, say, serving
from tests.service.test_flow_routes import leave_early, problem

RUNS: list[str] = []


@flow
def counted(text: str) -> str:
    RUNS.append(text)
    return f"run {len(RUNS)} of {text}"


GO_ON = threading.Event()


@flow
def waits(text: str) -> str:
    GO_ON.wait(30)
    return text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app"), flows=(counted, raises, say)) as made:
        yield made


def post(served: Served, key: str, body: Any = None, path: str = "/flows/counted", **headers: str) -> httpx.Response:
    return served.http.post(path, json=body or {"text": "a"}, headers={"Idempotency-Key": key, **headers})


def test_an_answer_is_replayed_byte_for_byte(served: Served) -> None:
    """The flow runs once; status, body and the headers that say what it cost come back as they were, marked."""
    key = str(uuid4())
    first = post(served, key)
    before = len(RUNS)
    for _ in range(3):
        again = post(served, key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        for name in ("content-type", "x-cost-usd", "x-calls"):
            assert again.headers[name] == first.headers[name]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert "idempotency-replayed" not in first.headers
    assert len(RUNS) == before


def test_an_error_of_the_flow_is_an_end(served: Served) -> None:
    """A 500 that came from a run is replayed as it was, its request id included: it ran, and is not to run again."""
    key = str(uuid4())
    first = post(served, key, path="/flows/raises")
    again = post(served, key, path="/flows/raises")
    assert (first.status_code, again.status_code, again.content) == (500, 500, first.content)
    assert again.headers["content-type"] == "application/problem+json"


def test_two_hundred_at_once_run_once(served: Served) -> None:
    """Of many equal requests at once one runs; the others hear that it is under way, or its answer."""
    key, before = str(uuid4()), len(RUNS)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(served, key, {"text": "many"}), range(200)))
    assert len(RUNS) == before + 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert problem(answer)["type"].endswith("idempotency-in-flight")
            assert int(answer.headers["retry-after"]) >= 1


def test_another_request_with_the_key(served: Served) -> None:
    """Another body, path or query is refused; another caller's key of the same name is its own."""
    key = str(uuid4())
    first = post(served, key)
    assert problem(post(served, key, {"text": "b"}))["status"] == 422
    assert problem(post(served, key, path="/flows/say"))["type"].endswith("idempotency-key-reused")
    assert problem(post(served, key, path="/flows/counted?a=1"))["status"] == 422
    assert problem(post(served, key, path="/flows/counted/jobs"))["status"] == 422
    other = post(served, key, {"text": "b"}, **served.another_key())
    assert other.status_code == 200
    assert post(served, key).content == first.content


@pytest.mark.parametrize("key", ["", "a b", "é".encode(), "x" * 256, "tab\t."])
def test_keys_that_are_none(served: Served, key: str | bytes) -> None:
    """Only plain ASCII of 1 to 255 characters is a key."""
    before = len(RUNS)
    body = b'{"text": "a"}'
    headers = {"Content-Type": "application/json", **served.it.headers}
    answer = served.http.post("/flows/counted", content=body, headers=[*headers.items(), ("Idempotency-Key", key)])
    assert answer.status_code in (400, 422)
    assert len(RUNS) == before


def test_two_keys(served: Served) -> None:
    """A request has one key."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert served.http.post("/flows/counted", json={"text": "a"}, headers=headers).status_code in (400, 422)


def test_what_is_refused_before_it_runs_leaves_the_key_free(served: Served) -> None:
    """A request without a key of the service, of a wrong shape or no JSON is no use of the Idempotency-Key."""
    key = str(uuid4())
    assert post(served, key, Authorization="Bearer nonsense").status_code == 401
    assert post(served, key, {"txt": "a"}).status_code == 422
    assert post(served, key, {"text": "good"}).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(errors.ServerFailed, 502), (errors.RateLimited, 503), (errors.AttemptTimeout, 504), (errors.BreakerOpen, 503)],
)
def test_what_may_be_tried_again_frees_the_key(error: Any, status: int, tmp_path: Path) -> None:
    """After a model's failure the same request runs anew, and its answer is then kept."""
    fake = FakeProvider(error, default="fine")
    with serving(tmp_path, fake, (say,), top='ladder = ["sim/small"]\nretries = 0') as served:
        first = post(served, "k", path="/flows/say")
        assert first.status_code == status, first.text
        second = post(served, "k", path="/flows/say")
        assert (second.status_code, second.json()) == (200, "fine")
        assert post(served, "k", path="/flows/say").headers["idempotency-replayed"] == "true"
        assert fake.calls == 2


def test_a_full_service_frees_the_key(tmp_path: Path) -> None:
    """A 503 of the gate and a 429 of a limit are not kept."""
    tiers = "max_running = 1\nmax_waiting = 0\n[service.tiers.slow]\nrequests_per_minute = 1"
    fake = FakeProvider(HANGS, default="fine")
    with serving(tmp_path, fake, (say,), service=tiers) as served:
        with served.http.stream("POST", "/flows/say/stream", json={"text": "holds the place"}) as held:
            pieces = held.iter_bytes()
            next(pieces)
            assert post(served, "k", path="/flows/say").status_code == 503
        until(lambda: served.it.service.gate.running == 0)
        assert post(served, "k", path="/flows/say").json() == "fine"
        slow = {"Authorization": f"Bearer {served.it.service.keys.make('slow')[0]}"}
        assert post(served, "a", path="/flows/say", **slow).status_code == 200
        assert post(served, "b", path="/flows/say", **slow).status_code == 429


@pytest.mark.parametrize("name", ["say", "later"])
def test_a_client_that_left_frees_the_key(name: str, tmp_path: Path) -> None:
    """Its run was ended; the next one with the key runs."""
    fake = FakeProvider(HANGS, default="fine")
    with serving(tmp_path, fake, (say, later)) as served:
        leave_early(served, f"/flows/{name}", {"text": "a"}, key="k")
        until(lambda: fake.in_flight == 0)
        until(lambda: post(served, "k", path=f"/flows/{name}").status_code == 200)


def test_in_flight(tmp_path: Path) -> None:
    """While the first runs the second hears 409; then it gets the first's answer."""
    fake = FakeProvider(Script(pieces=("slow",), first_after_s=0.4), default="never")
    with serving(tmp_path, fake, (say,)) as served:
        got: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: got.append(post(served, "k", path="/flows/say")))
        thread.start()
        until(lambda: fake.in_flight)
        assert post(served, "k", path="/flows/say").status_code == 409
        assert post(served, "k", path="/flows/say", **{"Idempotency-Retry": "true"}).status_code == 409
        thread.join()
        assert post(served, "k", path="/flows/say").content == got[0].content
        assert fake.calls == 1


def test_the_lease_of_a_key_is_renewed_while_its_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lease lapses by time, a run that takes longer keeps its key: it is renewed again and again, whatever a try says."""
    renewed: list[str] = []

    async def renew(claim: Claim) -> bool:
        renewed.append(claim.key)
        if len(renewed) < 3:
            raise StorageError("Redis does not answer.") if len(renewed) == 1 else RuntimeError("a bug")
        return True

    with serving(tmp_path, flows=(waits,)) as served, concurrent.futures.ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(served.it.service.idempotency, "renew_every_s", 0.01)
        monkeypatch.setattr(served.it.service.idempotency, "renew", renew)
        try:
            got = pool.submit(post, served, "k", path="/flows/waits")
            until(lambda: len(renewed) > 3)
        finally:
            GO_ON.set()
        assert got.result(30).status_code == 200
        assert set(renewed) == {"k"}


def test_a_job_is_taken_once(served: Served) -> None:
    """The same key gives the same job, with its Location."""
    key = str(uuid4())
    first = post(served, key, path="/flows/counted/jobs")
    again = post(served, key, path="/flows/counted/jobs")
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]


def test_a_key_after_a_restart(tmp_path: Path) -> None:
    """What was kept is there for the next process; of what ran when the process died the outcome is unknown, until retried."""
    with serving(tmp_path, flows=(counted,)) as served:
        first = post(served, "kept")
        text = served.it.key
        store: SqliteIdempotency = served.it.service.idempotency
        home = store._home
        with pytest.MonkeyPatch.context() as patched:  # a process that dies in mid-run writes no outcome
            patched.setattr(store, "finish", lambda *_: _nothing())
            patched.setattr(store, "release", lambda *_: _nothing())
            died = post(served, "died")
        assert died.status_code == 200
        home.close()  # its lock is free, as the system leaves it
    with serving(tmp_path, flows=(counted,)) as served:
        again = {"Authorization": f"Bearer {text}"}
        assert post(served, "kept", **again).content == first.content
        unknown = post(served, "died", **again)
        assert (unknown.status_code, problem(unknown)["type"]) == (409, "urn:nbllm:problem:idempotency-outcome-unknown")
        assert "Idempotency-Retry: true" in problem(unknown)["detail"]
        meant = post(served, "died", **again, **{"Idempotency-Retry": "true"})
        assert meant.status_code == 200
        assert post(served, "died", **again).content == meant.content


async def _nothing() -> None:
    return None


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can know whether a key came before, nothing runs; an answer that cannot be kept is delivered."""
    with serving(tmp_path, flows=(counted,)) as served:
        store: SqliteIdempotency = served.it.service.idempotency
        run = store._db.run
        full = {"begin": False, "finish": True}

        async def on_a_full_disk(work: Any, **more: Any) -> Any:
            finishing = bool(more.get("kept"))
            if full["finish" if finishing else "begin"]:
                raise StorageError("The disk is full.")
            return await run(work, **more)

        monkeypatch.setattr(store._db, "run", on_a_full_disk)
        before = len(RUNS)
        assert post(served, "k").status_code == 200
        assert problem(post(served, "k"))["type"].endswith("idempotency-outcome-unknown")
        full["begin"] = True
        refused = post(served, "k2")
        assert (refused.status_code, problem(refused)["type"]) == (503, "urn:nbllm:problem:storage")
        assert int(refused.headers["retry-after"]) >= 1
        assert len(RUNS) == before + 1
        assert served.http.post("/flows/counted", json={"text": "without a key"}).status_code == 200


def test_keys_of_forgotten_answers(tmp_path: Path) -> None:
    """After the time that the settings state, a key is as new."""
    with serving(tmp_path, flows=(counted,), service="idempotency_keep_s = 60") as served:
        first = post(served, "k")
        served.it.service.idempotency._now = lambda: 2_000_000_000.0
        assert post(served, "k").content != first.content


def test_what_is_kept_holds_no_key_of_the_service(tmp_path: Path) -> None:
    """The file holds answers, and nobody's key."""
    with serving(tmp_path, flows=(counted,)) as served:
        post(served, "k")
        key = served.it.key
    for path in (tmp_path / ".state").rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


def test_an_answer_that_is_too_large_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given once; the key then says that it ran, and nothing runs twice."""
    monkeypatch.setattr(idempotency, "MOST_KEPT_BYTES", 100)
    with serving(tmp_path, flows=(counted,)) as served:
        before = len(RUNS)
        assert post(served, "k", {"text": "x" * 200}).status_code == 200
        again = post(served, "k", {"text": "x" * 200})
        assert (again.status_code, problem(again)["type"]) == (409, "urn:nbllm:problem:idempotency-not-kept")
        assert len(RUNS) == before + 1


def test_what_one_caller_may_keep(tmp_path: Path) -> None:
    """When its kept answers hold as much as they may, a request with a new key is refused; without one, or another's, it is not."""
    with serving(tmp_path, flows=(counted,)) as served:
        served.it.service.idempotency._most_kept_bytes = 2_000
        answers = [post(served, f"k{number}", {"text": "x" * 500}) for number in range(5)]
        assert answers[0].status_code == 200
        assert (answers[-1].status_code, problem(answers[-1])["type"]) == (503, "urn:nbllm:problem:idempotency-full")
        assert post(served, "k0", {"text": "x" * 500}).content == answers[0].content
        assert served.http.post("/flows/counted", json={"text": "a"}).status_code == 200
        assert post(served, "other", **served.another_key()).status_code == 200
