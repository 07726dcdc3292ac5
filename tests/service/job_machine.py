"""Workers that come, run, give back and die in any order, on any JobStore."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from nbllm.service.ports import ENDED, JobLease, JobStore
from tests.service.conformance_jobs import MOST_LAPSES, JobsWorld, added, new


class JobsMachine(RuleBasedStateMachine):
    """Workers that come, run, give back and die in any order: no accepted job is lost, none is run by two that may write."""

    make_world: Any = None
    leases = Bundle("leases")

    @initialize()
    def begin_world(self) -> None:
        self.world: JobsWorld = type(self).make_world()
        self.stores: list[JobStore] = [self.world.open(), self.world.open()]
        self.jobs: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    @rule(which=st.integers(0, 1), priority=st.integers(0, 1))
    def add(self, which: int, priority: int) -> None:
        (job,) = self.world.run(added(self.stores[which], new(priority=priority)))
        self.jobs[job.job_id] = {"status": "queued", "priority": priority, "lapses": 0, "number": len(self.jobs), "cancel": False}

    @rule(target=leases, which=st.integers(0, 1))
    def claim(self, which: int) -> JobLease | None:
        """The first of the queue is taken, whoever asks."""
        got = self.world.run(self.stores[which].claim())
        queued = {job_id: job for job_id, job in self.jobs.items() if job["status"] == "queued"}
        if not queued:
            assert got is None
            return None
        first = min(queued, key=lambda job_id: (-queued[job_id]["priority"], queued[job_id]["lapses"], queued[job_id]["number"]))
        assert got is not None
        assert got.job.job_id == first
        self.jobs[first] |= {"status": "running", "lease": got, "by": self.stores[which]}
        return got

    def _current(self, lease: JobLease) -> tuple[JobStore, bool]:
        job = self.jobs[lease.job.job_id]
        current = job["status"] == "running" and job["lease"] == lease and job["by"] in self.stores
        return (job["by"] if current else self.stores[0]), current

    @rule(lease=leases)
    def renew(self, lease: JobLease | None) -> None:
        if lease is not None:
            store, current = self._current(lease)
            wanted = ("cancel" if self.jobs[lease.job.job_id]["cancel"] else "held") if current else "lost"
            assert self.world.run(store.renew(lease)) == wanted

    @rule(lease=consumes(leases), status=st.sampled_from(ENDED))
    def finish(self, lease: JobLease | None, status: Any) -> None:
        if lease is not None:
            store, current = self._current(lease)
            assert self.world.run(store.finish(lease, status, result="1")) == current
            if current:
                self.jobs[lease.job.job_id]["status"] = status

    @rule(lease=consumes(leases))
    def give_back(self, lease: JobLease | None) -> None:
        if lease is not None:
            store, current = self._current(lease)
            assert self.world.run(store.give_back(lease)) == current
            if current:
                job = self.jobs[lease.job.job_id]
                job["status"] = "cancelled" if job["cancel"] else "queued"

    @rule(which=st.integers(0, 1), number=st.integers(0, 5))
    def cancel(self, which: int, number: int) -> None:
        if number < len(self.jobs):
            job_id = list(self.jobs)[number]
            self.world.run(self.stores[which].cancel("a", job_id))
            job = self.jobs[job_id]
            if job["status"] == "queued":
                job["status"] = "cancelled"
            elif job["status"] == "running":
                job["cancel"] = True

    @rule(which=st.integers(0, 1))
    def crash_and_sweep(self, which: int) -> None:
        """A process dies; the other one sweeps."""
        dead = self.stores[which]
        self.world.crash(dead)
        self.stores[which] = self.world.open()
        back = self.world.run(self.stores[1 - which].sweep())
        lapsed = {job_id for job_id, job in self.jobs.items() if job["status"] == "running" and job["by"] is dead}
        for job_id in lapsed:
            job = self.jobs[job_id]
            job["lapses"] += 1
            job["status"] = "cancelled" if job["cancel"] else "failed" if job["lapses"] >= MOST_LAPSES else "queued"
        assert set(back) == {job_id for job_id in lapsed if self.jobs[job_id]["status"] == "queued"}

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every accepted job stands as the model says."""
        for job_id, job in getattr(self, "jobs", {}).items():
            found = self.world.run(self.stores[0].get("a", job_id))
            assert found is not None
            assert found.status == job["status"]
