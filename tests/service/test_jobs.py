"""Jobs over HTTP: taken, run, looked at, listed, cancelled, forgotten; nobody else's, and nothing lost when the service ends."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from nbllm import errors, flow
from nbllm.errors import StorageError
from nbllm.service import job_routes, jobs
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import rows, until
from tests.service.flow_apps import HANGS, HOUR, TICKET, Served, later, lies, raises, say, serving, sleeps, triage
from tests.service.test_flow_routes import problem
from tests.starvation import Stopwatch

GO = threading.Event()


@flow
def waits_for_go(text: str) -> str:
    GO.wait(30)
    return text


def start(served: Served, name: str, body: Any, **headers: str) -> str:
    answer = served.http.post(f"/flows/{name}/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "queued"
    place: str = answer.headers["location"]
    assert place == f"/flows/{name}/jobs/{answer.json()['id']}"
    return place


def ended(served: Served, place: str) -> dict[str, Any]:
    until(lambda: served.http.get(place).json()["status"] in ("done", "failed", "cancelled"))
    found: dict[str, Any] = served.http.get(place).json()
    return found


def test_a_job(tmp_path: Path) -> None:
    """202 and where to look; then running, then done with the flow's own result, which is kept for a stated time."""
    fake = FakeProvider(Script(pieces=("fine",), first_after_s=0.2))
    with serving(tmp_path, fake, (triage,), service="job_keep_s = 3600") as served:
        place = start(served, "triage", TICKET)
        until(lambda: served.http.get(place).json()["status"] == "running")
        assert served.http.get(place).headers["retry-after"] == "1"
        job = ended(served, place)
        assert job["result"] == {"priority": "high", "owner": {"name": "Ada", "mail": None}, "answer": "fine"}
        assert (job["status"], job["attempts"], job["error"], job["flow"]) == ("done", 1, None, "triage")
        assert job["created_at"] <= job["started_at"] <= job["finished_at"] < job["expires_at"]
        assert "retry-after" not in served.http.get(place).headers
        (key,) = served.it.service.keys.list()
        assert [row.user for row in rows(served.it.service.client)] == [f"key:{key.id}"]


@pytest.mark.parametrize(("function", "kind"), [(raises, "flow-failed"), (lies, "wrong-result")])
def test_a_job_that_fails(function: Any, kind: str, tmp_path: Path) -> None:
    """Its problem is kept instead of a result."""
    with serving(tmp_path, flows=(function,)) as served:
        job = ended(served, start(served, function.__nbllm_flow__, {"text": "private"}))
        assert (job["status"], job["result"], job["error"]["status"]) == ("failed", None, 500)
        assert job["error"]["type"].endswith(kind)
        assert "private" not in str(job["error"])


def test_a_model_that_is_down(tmp_path: Path) -> None:
    """A job ends with the problem of its model."""
    with serving(tmp_path, FakeProvider(default=errors.Refused), (later,)) as served:
        job = ended(served, start(served, "later", {"text": "a"}))
        assert job["error"]["type"].endswith("content-filter")


def test_another_callers_job(tmp_path: Path) -> None:
    """For every other key it does not exist: not to look at, not to cancel, not in a list."""
    with serving(tmp_path, flows=(say, later)) as served:
        place, other = start(served, "say", {"text": "a"}), served.another_key()
        assert problem(served.http.get(place, headers=other))["type"].endswith("no-such-job")
        assert served.http.post(f"{place}/cancel", headers=other).status_code == 404
        assert served.http.get("/flows/say/jobs", headers=other).json() == {"jobs": [], "next": None}
        assert served.http.get(place).status_code == 200
        assert served.http.get(place.replace("/say/", "/later/")).status_code == 404
        assert served.http.get(place, headers={"Authorization": "Bearer x"}).status_code == 401
        for odd in ("0" * 32, "x", "../x", "%2e%2e", "0" * 31, "A" * 32):
            assert served.http.get(f"/flows/say/jobs/{odd}").status_code in (404, 405, 422), odd


def test_lists(tmp_path: Path) -> None:
    """Newest first, page by page, without results; odd pages are refused."""
    with serving(tmp_path, flows=(say,)) as served:
        places = [start(served, "say", {"text": str(number)}) for number in range(5)]
        ids = [place.rpartition("/")[2] for place in places][::-1]
        first = served.http.get("/flows/say/jobs?limit=3").json()
        rest = served.http.get(f"/flows/say/jobs?limit=3&before={first['next']}").json()
        assert [job["id"] for job in first["jobs"] + rest["jobs"]] == ids
        assert (first["next"], rest["next"]) == (ids[2], None)
        assert all("result" not in job for job in first["jobs"])
        for query in ("limit=0", "limit=101", "limit=x", "before=../x"):
            assert served.http.get(f"/flows/say/jobs?{query}").status_code == 422


@pytest.mark.parametrize("name", ["say", "later"])
def test_cancelling_a_running_job(name: str, tmp_path: Path) -> None:
    """Upstream is closed within a second, and the job says so; cancelling it again changes nothing."""
    with serving(tmp_path, FakeProvider(default=HANGS), (say, later)) as served:
        place = start(served, name, {"text": "a"})
        until(lambda: served.fake.in_flight)
        watch = Stopwatch()
        answer = served.http.post(f"{place}/cancel")
        assert (answer.status_code, answer.json()["cancel_requested"]) == (200, True)
        until(lambda: served.fake.in_flight == 0)
        assert watch.s < 1
        job = ended(served, place)
        assert (job["status"], job["result"], job["error"]) == ("cancelled", None, None)
        assert served.http.post(f"{place}/cancel").json()["status"] == "cancelled"


def test_cancelling_a_queued_job(tmp_path: Path) -> None:
    """It never runs; a job that is done stays done."""
    GO.clear()
    with serving(tmp_path, flows=(waits_for_go,)) as served:
        served.it.service.jobs._at_once = 1
        first, second = (start(served, "waits_for_go", {"text": text}) for text in "ab")
        until(lambda: served.http.get(first).json()["status"] == "running")
        assert served.http.post(f"{second}/cancel").json()["status"] == "cancelled"
        GO.set()
        assert ended(served, first)["result"] == "a"
        assert served.http.post(f"{first}/cancel").json()["status"] == "done"
        assert ended(served, second)["attempts"] == 0


def test_more_jobs_than_run_at_once(tmp_path: Path) -> None:
    """They wait for their turn and all end."""
    with serving(tmp_path, flows=(say,)) as served:
        places = [start(served, "say", {"text": str(number)}) for number in range(30)]
        assert {ended(served, place)["status"] for place in places} == {"done"}


def test_higher_tiers_go_first(tmp_path: Path) -> None:
    """Of what waits, the job of a key with more priority is taken first."""
    GO.clear()
    with serving(tmp_path, flows=(waits_for_go,), service="[service.tiers.gold]\npriority = 5") as served:
        served.it.service.jobs._at_once = 1
        gold = {"Authorization": f"Bearer {served.it.service.keys.make('gold')[0]}"}
        running = start(served, "waits_for_go", {"text": "first"})
        until(lambda: served.http.get(running).json()["status"] == "running")
        usual = start(served, "waits_for_go", {"text": "usual"})
        dear = start(served, "waits_for_go", {"text": "dear"}, **gold)
        GO.set()
        done = ended(served, usual)
        assert served.http.get(dear, headers=gold).json()["started_at"] <= done["started_at"]


def test_a_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are taken than may wait; then 503 and when to come again."""
    monkeypatch.setattr(job_routes, "MOST_QUEUED", 2)
    GO.clear()
    try:
        with serving(tmp_path, flows=(waits_for_go,)) as served:
            served.it.service.jobs._at_once = 1
            until(lambda: served.http.get(start(served, "waits_for_go", {"text": "a"})).json()["status"] == "running")
            answers: list[httpx.Response] = []
            while len(answers) < 5 and (not answers or answers[-1].status_code == 202):
                answers.append(served.http.post("/flows/waits_for_go/jobs", json={"text": "b"}))
            assert problem(answers[-1])["type"].endswith("jobs-full")
            assert answers[-1].headers["retry-after"] == "10"
            GO.set()
    finally:
        GO.set()


def test_a_job_that_sleeps_for_an_hour(tmp_path: Path) -> None:
    """It fails when its time is over; others run."""
    HOUR.clear()
    try:
        with serving(tmp_path, flows=(sleeps, say), service="flow_timeout_s = 0.5") as served:
            slow = start(served, "sleeps", {})
            assert ended(served, slow)["error"]["type"].endswith("flow-timeout")
            served.it.service.runner._timeout_s = 60.0  # a machine that is slow is no flow that sleeps
            assert ended(served, start(served, "say", {"text": "a"}))["status"] == "done"
    finally:
        HOUR.set()


def test_a_key_that_was_revoked_pays_for_nothing(tmp_path: Path) -> None:
    """A job that waits when its key is revoked fails without a call."""
    GO.clear()
    with serving(tmp_path, flows=(say, waits_for_go)) as served:
        served.it.service.jobs._at_once = 1
        running = start(served, "waits_for_go", {"text": "first"})
        until(lambda: served.http.get(running).json()["status"] == "running")
        gone = served.another_key()
        start(served, "say", {"text": "a"}, **gone)
        revoked = next(key.id for key in served.it.service.keys.list() if key.id in gone["Authorization"])
        served.it.service.keys.revoke(revoked)
        GO.set()
        store = served.it.service.jobs.store

        async def status() -> str:
            found = await store.list(revoked, "say", limit=1)
            return str(found[0].status)

        until(lambda: asyncio.run_coroutine_threadsafe(status(), served.it.loop).result() == "failed")
        assert served.fake.calls == 0


def test_a_service_that_ends_gives_jobs_back(tmp_path: Path) -> None:
    """What ran is queued again, not failed, and the next process runs it; a finished result is there."""
    fake = FakeProvider(default=HANGS)
    with serving(tmp_path, fake, (say, later)) as served:
        key = {"Authorization": f"Bearer {served.it.key}"}
        places = [start(served, name, {"text": name}) for name in ("say", "later")]
        until(lambda: fake.in_flight == 2)
        watch = Stopwatch(others=True)
    assert watch.s < 6
    assert fake.in_flight == 0, "nothing goes on upstream"
    with serving(tmp_path, FakeProvider(default="fine"), (say, later)) as served:
        served.http.headers.update(key)
        for place in places:
            job = ended(served, place)
            assert (job["status"], job["result"], job["attempts"]) == ("done", "fine", 2)


def test_a_disk_that_fills_while_a_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome, which is paid for, is written as soon as there is room; a job that cannot be taken is refused with 503."""
    monkeypatch.setattr(jobs, "_RETRY_S", (0.02,))
    GO.clear()
    with serving(tmp_path, flows=(waits_for_go,)) as served:
        store = served.it.service.jobs.store
        place = start(served, "waits_for_go", {"text": "dear"})
        until(lambda: served.http.get(place).json()["status"] == "running")
        run, full = store._run, [True]

        async def on_a_full_disk(work: Any, **more: Any) -> Any:
            if full:
                raise StorageError("The disk is full.")
            return await run(work, **more)

        monkeypatch.setattr(store, "_run", on_a_full_disk)
        answer = served.http.post("/flows/waits_for_go/jobs", json={"text": "b"})
        assert (answer.status_code, problem(answer)["type"]) == (503, "urn:nbllm:problem:storage")
        GO.set()
        time.sleep(0.1)
        assert served.http.get(place).json()["status"] == "running"
        full.clear()
        assert ended(served, place)["result"] == "dear"


def test_a_flow_that_is_gone_or_takes_other_arguments(tmp_path: Path) -> None:
    """A job of an older app, which cannot be run any more, fails and says why."""
    GO.clear()
    with serving(tmp_path, flows=(waits_for_go, say)) as served:
        key = {"Authorization": f"Bearer {served.it.key}"}
        served.it.service.jobs._at_once = 0
        places = [start(served, name, {"text": "a"}) for name in ("waits_for_go", "say")]

    @flow
    def say_(words: str) -> str:
        return words

    say_.__nbllm_flow__ = "say"  # type: ignore[attr-defined]  # as a newer app has it
    with serving(tmp_path, flows=(say_,)) as served:
        served.http.headers.update(key)
        assert ended(served, places[1])["error"]["type"].endswith("invalid-fields")
        store = served.it.service.jobs.store
        job_id, caller = places[0].rpartition("/")[2], served.it.service.keys.list()[0].id

        async def gone() -> str:
            return str((await store.get(caller, job_id)).problem)

        until(lambda: "no-such-flow" in asyncio.run_coroutine_threadsafe(gone(), served.it.loop).result())


def test_two_apps_in_one_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs its own jobs only, and knows nothing of the other's keys for answers."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "shared"))
    with serving(tmp_path / "one", flows=(say,)) as one, serving(tmp_path / "two", flows=(later,)) as two:
        places = [start(one, "say", {"text": str(number)}) for number in range(20)]
        assert {ended(one, place)["status"] for place in places} == {"done"}
        key = {"Idempotency-Key": "k"}
        assert one.http.post("/flows/say", json={"text": "a"}, headers=key).status_code == 200
        assert two.http.post("/flows/later", json={"text": "a"}, headers=key).status_code == 200
