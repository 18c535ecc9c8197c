"""Any order of claims, beats, finishes, crashes, cancels and time keeps the promises of the step table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, select

from crosstune.db.engine import reading, transaction
from crosstune.db.errors import StaleClaim
from crosstune.db.repositories import events, jobs, steps
from crosstune.db.tables import Event, Job, Step, Task

LEASE_S = 15.0
ROUNDS_PER_JOB = 2
GRAPHS = ("conv", "pool")
WORKERS = st.sampled_from(["w1", "w2", "w3"])
INDEX = st.integers(0, 3)


class StepTable(RuleBasedStateMachine):
    """The model keeps every claim that was ever given, and which of them its worker still believes in."""

    def __init__(self, engine: Engine, make: Any) -> None:
        super().__init__()
        self.engine, self.make, self.now = engine, make, 1000.0
        self.jobs: list[jobs.JobRow] = []
        self.given: list[steps.Claim] = []
        self.held: dict[str, list[steps.Claim]] = {"w1": [], "w2": [], "w3": []}
        self.leased_until: dict[str, float] = {}
        self.final: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        with transaction(engine) as connection:
            for table in (Event, Step, Task, Job):
                connection.execute(delete(table))

    @rule(graph=st.sampled_from(GRAPHS))
    def submit(self, graph: str) -> None:
        if len(self.jobs) >= 4:
            return
        with transaction(self.engine) as connection:
            job = self.make.job(connection, GRAPHS, now=self.now)
            self.make.round(connection, job, graph)
            self.jobs.append(jobs.transition(connection, job.id, jobs.JobState.RUNNING, now=self.now))

    @rule(worker=WORKERS, index=INDEX)
    def claim(self, worker: str, index: int) -> None:
        with transaction(self.engine) as connection:
            rows = [row for job in self.jobs for row in steps.of_job(connection, job.id, live_only=True)]
            if not rows:
                return
            step_id = rows[index % len(rows)].id
            claim = steps.claim(connection, step_id, worker, LEASE_S, self.now)
        if claim is not None:
            assert self.leased_until.get(step_id, 0.0) < self.now, "it was taken from a worker whose lease holds"
            self.given.append(claim)
            self.held[worker].append(claim)
            self.leased_until[step_id] = claim.lease_until

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        with transaction(self.engine) as connection:
            held = steps.beat(connection, worker, LEASE_S, self.held[worker], self.now).held
        for claim in self.held[worker]:
            assert (claim.step_id in held) == (self.is_latest(claim) and claim.step_id not in self.final)
        self.held[worker] = [claim for claim in self.held[worker] if claim.step_id in held]
        self.leased_until |= dict.fromkeys(held, self.now + LEASE_S)

    @rule(worker=WORKERS, index=INDEX)
    def finish(self, worker: str, index: int) -> None:
        if self.held[worker]:
            self.try_to_finish(self.held[worker].pop(index % len(self.held[worker])))

    @rule(index=st.integers(0, 20))
    def late_finish(self, index: int) -> None:
        if self.given:
            self.try_to_finish(self.given[index % len(self.given)])

    def try_to_finish(self, claim: steps.Claim) -> None:
        """Store a result, then the next round or the end of the job, in the transaction of the flip."""
        assert claim.job_id is not None
        entitled = self.is_latest(claim) and claim.step_id not in self.final
        try:
            with transaction(self.engine) as connection:
                steps.finish(connection, claim, now=self.now)
                events.append(connection, claim.job_id, "result", {"step": claim.step_id}, self.now)
                if not jobs.settle_cancelled(connection, claim.job_id, self.now):
                    self.go_on(connection, claim.job_id)
            assert entitled, "a claim that was overtaken has stored its result"
            self.leased_until.pop(claim.step_id, None)
        except StaleClaim:
            # The sweep may have cancelled the step of a job that was to end.
            with transaction(self.engine) as connection:
                row = steps.get(connection, claim.step_id)
            assert not entitled or row.state != "running" or row.attempt != claim.attempt

    def go_on(self, connection: Any, job_id: str) -> None:
        job = jobs.get(connection, job_id)
        if job.ended or job.cancel_requested:
            return
        if len(steps.of_job(connection, job_id)) < ROUNDS_PER_JOB:
            self.make.round(connection, job, GRAPHS[0])
        else:
            jobs.transition(connection, job_id, jobs.JobState.BUILDING, now=self.now)
            jobs.transition(connection, job_id, jobs.JobState.SUCCEEDED, now=self.now)

    @rule(worker=WORKERS, retry_in_s=st.sampled_from([0.0, 20.0]))
    def fail(self, worker: str, retry_in_s: float) -> None:
        if self.held[worker]:
            self.act_on_claim(self.held[worker].pop(), lambda c, claim: steps.fail(c, claim, "x", retry_in_s, self.now))

    @rule(worker=WORKERS)
    def release(self, worker: str) -> None:
        if self.held[worker]:
            self.act_on_claim(self.held[worker].pop(), steps.release)

    def act_on_claim(self, claim: steps.Claim, act: Any) -> None:
        entitled = self.is_latest(claim) and claim.step_id not in self.final
        try:
            with transaction(self.engine) as connection:
                act(connection, claim)
            assert entitled
            self.leased_until.pop(claim.step_id, None)
        except StaleClaim:
            pass

    @rule(worker=WORKERS)
    def crash(self, worker: str) -> None:
        self.held[worker] = []

    @rule()
    def sweep(self) -> None:
        with transaction(self.engine) as connection:
            steps.sweep(connection, self.now)
            announced = [one.step_id for one in steps.runnable(connection, 10, now=self.now)]
            assert all(self.leased_until.get(step_id, 0.0) < self.now for step_id in announced)
            assert not {one.step_id for one in steps.runnable(connection, 10, now=self.now)} & set(announced)

    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        if self.jobs:
            with transaction(self.engine) as connection:
                jobs.cancel(connection, self.jobs[index % len(self.jobs)].id, self.now)

    @rule(seconds=st.floats(0.1, 60))
    def advance_clock(self, seconds: float) -> None:
        self.now += seconds

    def is_latest(self, claim: steps.Claim) -> bool:
        return claim.attempt == max(one.attempt for one in self.given if one.step_id == claim.step_id)

    @invariant()
    def the_table_keeps_its_promises(self) -> None:
        with reading(self.engine) as connection:
            rows = {row.id: row for row in connection.execute(select(Step.__table__))}
            written = connection.execute(select(Event.__table__).order_by(Event.job_id, Event.sequence)).all()
            states = connection.execute(select(Job.id, Job.state)).all()
        running = Counter((row.target_key, row.workload_key) for row in rows.values() if row.state == "running")
        assert all(count == 1 for count in running.values()), "two rounds of one workload and target are running"
        self.check_steps(rows)
        results = Counter(event.data["step"] for event in written if event.kind == "result")
        assert all(count == 1 for count in results.values()), "a step has stored its results twice"
        assert set(results) == {row.id for row in rows.values() if row.state == "done"}, "done and results disagree"
        for job in states:
            ended = job.state in jobs.FINAL_STATES
            numbers = [event.sequence for event in written if event.job_id == job.id]
            assert numbers == list(range(1, len(numbers) + 1)), "the events of a job have a gap"
            live = [row for row in rows.values() if row.job_id == job.id and row.state in ("queued", "running")]
            assert ended or live, "an unfinished job has nothing that could go on"
            assert not (ended and [row for row in live if row.state == "queued"]), "an ended job has work queued"

    def check_steps(self, rows: dict[str, Any]) -> None:
        for row in rows.values():
            assert row.attempt >= self.attempts.get(row.id, 0), "an attempt was counted down"
            assert row.attempt - row.released <= steps.MAX_ATTEMPTS, "a poison step was tried for ever"
            assert self.final.get(row.id, row.state) == row.state, "a final state has changed"
            self.attempts[row.id] = row.attempt
            if row.state in ("done", "failed", "cancelled"):
                self.final[row.id] = row.state


def run(engine: Engine, make: Any, **more: Any) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: StepTable(engine, make),
        settings=settings(
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
            **more,
        ),
    )


def test_any_order_of_events_keeps_the_promises_of_the_step_table(engine: Engine, make: Any) -> None:
    run(engine, make, max_examples=20)


def test_the_machine_notices_a_table_without_fencing(
    engine: Engine, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "fence", lambda claim: ())
    with pytest.raises(AssertionError):
        run(engine, make, max_examples=60, phases=[Phase.generate])
