"""The worker's promises without TVM: steps run once, survive deaths anywhere, share one device, stop when told.

A fake round measures nothing but behaves as a real one: it holds the device, looks whether it is to stop, and answers
the same candidates each time. Everything else, the database included, is real.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, text, update
from sqlalchemy.exc import DBAPIError

from crosstune.db.engine import opened, reading, retrying, transaction
from crosstune.db.repositories import devices, jobs, steps, targets
from crosstune.db.repositories.jobs import JobRow, JobState
from crosstune.db.repositories.steps import StepKind
from crosstune.db.tables import Event, Measurement, Step
from crosstune.service import jobs as service_jobs
from crosstune.service.settings import Settings
from crosstune.service.steps.context import Stopped
from crosstune.service.worker import EXECUTORS, Worker
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    Invalidity,
    Measuring,
    Quality,
    RoundRequest,
    RoundResult,
    ShouldStop,
    TargetSpec,
    sha256_json,
)

LEASE_S = 0.6
TRIALS = 8


class Died(BaseException):
    """The process ends here; no handler of the worker sees it."""


class FakeRounds:
    """Rounds that take `seconds` on the device and answer two fresh candidates, one of them a failure."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.busy: list[tuple[float, float]] = []
        self.requests: list[RoundRequest] = []
        self.measuring = threading.Event()

    def run(self, request: RoundRequest, measuring: Measuring, should_stop: ShouldStop) -> RoundResult:
        self.requests.append(request)
        with measuring():
            began_s = time.monotonic()
            self.measuring.set()
            while time.monotonic() < began_s + self.seconds and not should_stop():
                time.sleep(0.01)
            self.busy.append((began_s, time.monotonic()))
        stopped = should_stop()
        fresh = len(request.known)
        found = () if stopped else tuple(self._candidate(request, fresh + index) for index in range(2))
        return RoundResult(found, exhausted=False, stopped=stopped, reference_s=1e-3, timings_s={"run": self.seconds})

    @staticmethod
    def _candidate(request: RoundRequest, number: int) -> CandidateResult:
        trace: list[Any] = [[["Nothing", [], [number], []]], []]
        failed = Attempt((), Quality.QUICK, Invalidity.COMPILE, "no")
        timed = Attempt((1e-3 / (1 + number),) * 3, Quality.FULL, conditions={"threads": 2})
        return CandidateResult(
            trace=trace,
            schedule_sha256=sha256_json(trace),
            module_sha256=sha256_json([request.workload.sha256, number]),
            features=None,
            predicted_score=None,
            attempts=(failed if number % 2 else timed,),
            source="default" if number == 0 else "search",
        )

    def close(self) -> None:
        """Nothing is kept between rounds."""


def make_worker(engine: Engine, folder: Path, rounds: FakeRounds, lease_s: float = LEASE_S) -> Worker:
    settings = Settings(
        data_dir=folder, database_url=engine.url.render_as_string(hide_password=False), lease_s=lease_s, sweep_s=0.05
    )
    worker = Worker(settings, engine)
    worker.context.__dict__["rounds"] = rounds
    return worker


def submit(
    engine: Engine,
    make: Any,
    worker: Worker,
    target: str = "here",
    graphs: tuple[str, ...] = ("conv",),
    trials: int = TRIALS,
) -> JobRow:
    """A job of so many trials whose target this worker's device stands for, with its first step."""

    def work(connection: Any) -> JobRow:
        spec = TargetSpec("llvm", target, 2, "test")
        row, _ = targets.register(connection, identity=spec.identity, name=target, spec=spec.to_json())
        devices.stand_for(connection, worker.context.identity.device_key, row.key)
        network = make.network(connection, f"{target} {graphs}", graphs)
        job = jobs.create(
            connection,
            project_id="default",
            network_id=network.id,
            target_key=row.key,
            budget_trials=trials,
            budget_s=None,
        )
        return service_jobs.start_job(connection, job)

    return retrying(engine, work)


def queued_steps(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        rows = connection.execute(select(Step.id).where(Step.state.in_(["queued", "running"])).order_by(Step.key))
        return list(rows.scalars())


def run_rounds(engine: Engine, worker: Worker, until: Callable[[], bool], patience_s: float = 20.0) -> None:
    """Run whatever can be claimed, as announcements would, until `until`."""
    deadline_s = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < deadline_s, "the work did not end"
        for step_id in queued_steps(engine):
            worker.run_step(step_id)
        time.sleep(0.02)


def state_of(engine: Engine, job_id: str) -> JobRow:
    with reading(engine) as connection:
        return jobs.get(connection, job_id)


def measured(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        query = select(Measurement.step_key, Measurement.attempt, Step.attempt, Step.state)
        return list(connection.execute(query.join(Step, Step.key == Measurement.step_key)).all())


def check_everything_happened_once(engine: Engine, job_id: str, trials: int = TRIALS) -> None:
    rows = measured(engine)
    assert all(attempt == latest and state == "done" for _, attempt, latest, state in rows)
    with reading(engine) as connection:
        done = connection.execute(
            select(Step.key).where(Step.job_id == job_id, Step.kind == "round", Step.state == "done")
        )
        rounds = len(list(done.scalars())) - 1  # the first step only plans
        sequences = list(connection.execute(select(Event.sequence).where(Event.job_id == job_id)).scalars())
        job = jobs.get(connection, job_id)
    assert len(rows) == 2 * rounds == job.trials == trials
    assert sorted(sequences) == list(range(1, job.event_sequence + 1))


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> Iterator[Worker]:
    made = make_worker(engine, tmp_path / "data", FakeRounds())
    yield made
    made.context.close()


@contextmanager
def dying_at(engine: Engine, statement: int) -> Iterator[None]:
    """End the process before the n-th statement (from 1), or at the COMMIT in its place; later ones are untouched."""
    count = 0

    def step(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == statement:
            raise Died

    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", step)
        event.remove(engine, "commit", step)


def test_a_job_runs_its_rounds_within_its_budget_and_goes_on_to_its_build(
    engine: Engine, make: Any, worker: Worker
) -> None:
    job = submit(engine, make, worker, graphs=("conv", "dense"))
    run_rounds(engine, worker, lambda: state_of(engine, job.id).state is JobState.BUILDING)
    ended = state_of(engine, job.id)
    assert ended.trials == TRIALS and ended.stop_reason == "trials used"
    assert ended.best_latency_s is not None and ended.untuned_latency_s is not None
    check_everything_happened_once(engine, job.id)


@pytest.fixture
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers give them back."""

    def not_now(*_: Any) -> None:
        raise Stopped

    monkeypatch.setitem(EXECUTORS, StepKind.BUILD_NETWORK, not_now)


@pytest.mark.usefixtures("no_builds")
def test_a_worker_goes_from_round_to_round_with_three_transactions_each(
    engine: Engine, make: Any, worker: Worker
) -> None:
    job = submit(engine, make, worker)
    worker.look()
    first, transactions = queued_steps(engine)[0], []
    for end in ("commit", "rollback"):
        event.listen(engine, end, transactions.append)
    worker.run_step(first)
    taken = len(transactions)
    assert state_of(engine, job.id).state is JobState.BUILDING
    check_everything_happened_once(engine, job.id)
    claim_and_plan, give_back = 2, 1
    assert taken == claim_and_plan + 3 * TRIALS // 2 + give_back


@pytest.mark.usefixtures("no_builds")
def test_a_step_survives_a_death_at_every_statement_from_claim_to_finish(
    engine: Engine, make: Any, worker: Worker, tmp_path: Path
) -> None:
    job = submit(engine, make, worker)
    worker.run_step(queued_steps(engine)[0])  # the planning step
    deaths = 0
    for statement in range(1, 200):
        heir = make_worker(engine, tmp_path / f"heir{statement}", FakeRounds(), lease_s=0.05)
        heir.look()  # so that it takes the next round in the transaction that ends this one
        step_id = queued_steps(engine)[0]
        try:
            with dying_at(engine, statement):
                heir.run_step(step_id)
        except Died:
            deaths += 1
            time.sleep(0.06)
            with reading(engine) as connection:
                row = steps.get(connection, step_id)
            if row.state == "done":  # it died after its last COMMIT
                break
            forgive(engine, step_id)
            assert not [one for one in measured(engine) if one[3] != "done"], f"half stored at statement {statement}"
        else:
            break
    assert deaths > 10
    run_rounds(engine, worker, lambda: state_of(engine, job.id).state is JobState.BUILDING)
    check_everything_happened_once(engine, job.id)


@contextmanager
def cut_at(engine: Engine, other: Engine, statement: int) -> Iterator[list[int]]:
    """PostgreSQL ends the session before its n-th statement (from 1), or before the COMMIT in its place. Gives the
    process ids of what was cut."""
    count = 0
    cut: list[int] = []

    def step(connection: Connection, *_: Any) -> None:
        nonlocal count
        count += 1
        if count == statement:
            cut.append(connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]
            with other.begin() as administration:
                administration.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": cut[0]})

    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)
    try:
        yield cut
    finally:
        event.remove(engine, "before_cursor_execute", step)
        event.remove(engine, "commit", step)


def test_a_step_survives_a_connection_that_is_cut_at_every_statement_from_claim_to_finish(
    engine: Engine, make: Any, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no server")
    monkeypatch.setattr("crosstune.service.worker.RETRY_S", 0.0)
    job = submit(engine, make, worker, trials=1000)
    worker.run_step(queued_steps(engine)[0])  # the planning step
    cuts = 0
    with opened(engine.url.render_as_string(hide_password=False)) as other:
        for statement in range(1, 200):
            step_id = queued_steps(engine)[0]
            # A claim whose COMMIT was cut is nobody's: the next announcement is claimed again.
            with cut_at(engine, other, statement) as cut, suppress(DBAPIError):
                worker.run_step(step_id)
            if not cut:
                break
            cuts += 1
            forgive(engine, step_id)
    assert cuts > 20
    check_everything_happened_once(engine, job.id, state_of(engine, job.id).trials)


def forgive(engine: Engine, step_id: str) -> None:
    """Many deaths of one step would make it poison, which is another test's subject."""
    with transaction(engine) as connection:
        connection.execute(update(Step).where(Step.id == step_id).values(released=Step.attempt))


def run_zombie(engine: Engine, make: Any, tmp_path: Path) -> JobRow:
    """A worker whose heart stands still loses its round to another, and finishes afterwards all the same."""
    slow = FakeRounds(seconds=1.5)
    zombie = make_worker(engine, tmp_path / "zombie", slow)
    job = submit(engine, make, zombie)
    zombie.run_step(queued_steps(engine)[0])
    step_id = queued_steps(engine)[0]
    late = threading.Thread(target=zombie.run_step, args=(step_id,))
    late.start()
    assert slow.measuring.wait(10)
    time.sleep(LEASE_S + 0.1)
    heir = make_worker(engine, tmp_path / "heir", FakeRounds())
    heir.run_step(step_id)
    late.join()
    run_rounds(engine, heir, lambda: state_of(engine, job.id).state is JobState.BUILDING)
    return job


def test_a_round_that_was_taken_over_is_stored_once_although_both_workers_finish(
    engine: Engine, make: Any, tmp_path: Path
) -> None:
    job = run_zombie(engine, make, tmp_path)
    check_everything_happened_once(engine, job.id)


def test_without_fencing_the_same_scenario_stores_results_twice(
    engine: Engine, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "fence", lambda claim: ())
    job = run_zombie(engine, make, tmp_path)
    with pytest.raises(AssertionError):
        check_everything_happened_once(engine, job.id)


def test_jobs_on_two_targets_of_one_machine_never_measure_at_the_same_time(
    engine: Engine, make: Any, tmp_path: Path
) -> None:
    workers, fakes = [], [FakeRounds(seconds=0.05), FakeRounds(seconds=0.05)]
    for index, fake in enumerate(fakes):
        workers.append(make_worker(engine, tmp_path / str(index), fake))
    submitted = [submit(engine, make, workers[0], target, ("conv",)) for target in ("avx512", "avx2")]
    for one in workers:
        one.start()
    deadline_s = time.monotonic() + 30
    while any(state_of(engine, job.id).trials < TRIALS for job in submitted):
        assert time.monotonic() < deadline_s, "the jobs did not end"
        time.sleep(0.05)
    for one in workers:
        one.stop()
    spans = sorted(span for fake in fakes for span in fake.busy)
    assert len(spans) >= 2 * TRIALS // 2
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


def test_cancelling_stops_a_running_round_within_a_second_and_ends_the_job(
    engine: Engine, make: Any, tmp_path: Path
) -> None:
    fake = FakeRounds(seconds=30)
    worker = make_worker(engine, tmp_path / "data", fake)
    job = submit(engine, make, worker)
    worker.start()
    assert fake.measuring.wait(10)
    retrying(engine, lambda connection: jobs.cancel(connection, job.id))
    asked_s = time.monotonic()
    while state_of(engine, job.id).state is not JobState.CANCELLED:
        assert time.monotonic() - asked_s < 5, "the job was not cancelled"
        time.sleep(0.02)
    assert time.monotonic() - asked_s < 2
    worker.stop()


def test_a_worker_that_stops_gives_its_round_back_for_the_next_one(engine: Engine, make: Any, tmp_path: Path) -> None:
    fake = FakeRounds(seconds=30)
    worker = make_worker(engine, tmp_path / "first", fake)
    job = submit(engine, make, worker)
    worker.start()
    assert fake.measuring.wait(10)
    worker.stop()
    heir = make_worker(engine, tmp_path / "second", FakeRounds())
    run_rounds(engine, heir, lambda: state_of(engine, job.id).state is JobState.BUILDING)
    check_everything_happened_once_after_a_stop(engine, job.id)


def check_everything_happened_once_after_a_stop(engine: Engine, job_id: str) -> None:
    """A stopped round may be done with what it has, which is nothing here."""
    rows = measured(engine)
    assert len(rows) == state_of(engine, job_id).trials == TRIALS
    assert all(attempt == latest and state == "done" for _, attempt, latest, state in rows)


def test_work_for_a_paused_device_waits_in_the_table_and_goes_on_when_it_is_resumed(
    engine: Engine, make: Any, tmp_path: Path
) -> None:
    worker = make_worker(engine, tmp_path / "data", FakeRounds())
    device = worker.context.identity.device_id
    retrying(engine, lambda connection: devices.set_state(connection, device, devices.DeviceState.PAUSED))
    job = submit(engine, make, worker)
    worker.start()
    time.sleep(0.5)
    with reading(engine) as connection:
        assert {step.state for step in steps.of_job(connection, job.id)} == {"queued"}
    retrying(engine, lambda connection: devices.set_state(connection, device, devices.DeviceState.ACTIVE))
    deadline_s = time.monotonic() + 20
    while state_of(engine, job.id).trials < TRIALS:
        assert time.monotonic() < deadline_s, "the job did not go on"
        time.sleep(0.05)
    worker.stop()


def test_a_round_that_waits_when_its_device_is_paused_is_given_back_untried(
    engine: Engine, make: Any, worker: Worker
) -> None:
    job = submit(engine, make, worker)
    worker.run_step(queued_steps(engine)[0])
    step_id = queued_steps(engine)[0]
    device = worker.context.identity.device_id
    retrying(engine, lambda connection: devices.set_state(connection, device, devices.DeviceState.PAUSED))
    worker.run_step(step_id)
    with reading(engine) as connection:
        step = steps.get(connection, step_id)
    assert step.state == "queued" and step.last_exit is None
    retrying(engine, lambda connection: devices.set_state(connection, device, devices.DeviceState.ACTIVE))
    run_rounds(engine, worker, lambda: state_of(engine, job.id).state is JobState.BUILDING)
    check_everything_happened_once(engine, job.id)


def test_a_round_that_kills_its_worker_every_time_is_poison_and_fails_its_job_only(
    engine: Engine, make: Any, worker: Worker
) -> None:
    doomed = submit(engine, make, worker, "doomed")
    worker.run_step(queued_steps(engine)[0])
    step_id = queued_steps(engine)[0]

    class Deadly(FakeRounds):
        def run(self, *_: Any) -> RoundResult:
            raise Died

    alive, worker.context.__dict__["rounds"] = worker.context.rounds, Deadly()
    for _ in range(steps.MAX_ATTEMPTS):
        with pytest.raises(Died):
            worker.run_step(step_id)
        time.sleep(LEASE_S + 0.05)
    retrying(engine, steps.sweep)
    failed = state_of(engine, doomed.id)
    assert failed.state is JobState.FAILED and failed.stop_reason == "poison"
    worker.context.__dict__["rounds"] = alive
    healthy = submit(engine, make, worker, "healthy")
    run_rounds(engine, worker, lambda: state_of(engine, healthy.id).state is JobState.BUILDING)
