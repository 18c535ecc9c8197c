"""kill -9 in the middle of a job: the next service goes on, nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from crosstune import Client
from crosstune.db.engine import create_engine, reading
from crosstune.db.repositories.steps import MAX_ATTEMPTS, StepState
from crosstune.db.tables import Event, Job, Measurement, Record, Step, Task
from crosstune.service.schemas.jobs import Budget, JobIn, JobState

FAST = {"CROSSTUNE_LEASE_S": "2", "CROSSTUNE_SWEEP_S": "0.2"}


def run_through_kills(service: object, network: Path, trials: int, kills: int, seed: int) -> str:
    """Submit a job, kill the service `kills` times at random moments, and see the job to its end."""
    draw = random.Random(seed)
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        target = client.detect_target().id
        uploaded = client.upload_network(network)
        body = JobIn(network=uploaded.id, target=target, budget=Budget(trials=trials), seed=seed, whole_budget=True)
        job = client.create_job(body, key="the-only-job").id
    for _ in range(kills):
        time.sleep(draw.uniform(0.5, 6.0))
        while not _may_die_again(service.data_dir):  # type: ignore[attr-defined]
            time.sleep(0.2)
        service.kill()  # type: ignore[attr-defined]
        with Client(service.start()) as client:  # type: ignore[attr-defined]
            assert client.create_job(body, key="the-only-job").id == job
    with Client(service.url) as client:  # type: ignore[attr-defined]
        ended = client.wait(job, timeout_s=240)
        assert ended.state is JobState.SUCCEEDED, ended.failure
        assert ended.trials >= trials
    return job


def sqlite(data_dir: Path) -> str:
    return f"sqlite:///{data_dir / 'crosstune.db'}"


def _may_die_again(data_dir: Path) -> bool:
    """Whether no unfinished step has died twice: a third time would rightly make it poison, which is another test."""
    engine = create_engine(sqlite(data_dir))
    unfinished = select(Step.attempt - Step.released).where(Step.state.in_([StepState.QUEUED, StepState.RUNNING]))
    with reading(engine) as connection:
        tries = connection.execute(unfinished).scalars().all()
    engine.dispose()
    return max(tries, default=0) < MAX_ATTEMPTS


def check_nothing_lost_nothing_doubled(database_url: str, job_id: str) -> None:
    engine = create_engine(database_url)
    with reading(engine) as connection:
        job = connection.execute(select(Job.trials, Job.event_sequence).where(Job.id == job_id)).one()
        steps = {
            row.key: row for row in connection.execute(select(Step.key, Step.state, Step.attempt, Step.kind, Step.id))
        }
        measured = connection.execute(select(Measurement.step_key, Measurement.attempt, Measurement.record_key)).all()
        schedules = connection.execute(select(Record.target_key, Record.workload_key, Record.schedule_sha256)).all()
        task_trials = sum(connection.execute(select(Task.trials).where(Task.job_id == job_id)).scalars())
        sequences = connection.execute(select(Event.sequence).where(Event.job_id == job_id)).scalars().all()
    engine.dispose()
    assert all(row.state == "done" for row in steps.values()), "every step was finished"
    assert all(steps[one.step_key].attempt == one.attempt for one in measured), "only the last attempt stored results"
    assert len(set(schedules)) == len(schedules)
    per_step = Counter((one.step_key, one.record_key) for one in measured)
    assert {record for _, record in per_step}, "something was measured"
    assert task_trials == job.trials
    assert sorted(sequences) == list(range(1, job.event_sequence + 1))


def test_a_job_survives_the_death_of_its_service(service_process: Callable[..., object], tiny_network: Path) -> None:
    service = service_process(**FAST)
    job = run_through_kills(service, tiny_network, trials=24, kills=3, seed=1)
    check_nothing_lost_nothing_doubled(sqlite(service.data_dir), job)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_service_that_is_stopped_while_it_builds_builds_again_when_it_is_back(
    service_process: Callable[..., object], tiny_network: Path
) -> None:
    service = service_process(**FAST)
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        target = client.detect_target().id
        network = client.wait_network(client.upload_network(tiny_network).id)
        body = JobIn(network=network.id, target=target, budget=Budget(trials=5))
        job = client.create_job(body).id
        for event in client.job_events(job):
            if event.data.get("state") == JobState.BUILDING:
                break
    time.sleep(1.0)
    service.stop()  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        ended = client.wait(job, timeout_s=120)
    assert ended.state is JobState.SUCCEEDED, ended.failure
    check_nothing_lost_nothing_doubled(sqlite(service.data_dir), job)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(10))
def test_a_job_survives_many_deaths(service_process: Callable[..., object], tiny_network: Path, seed: int) -> None:
    service = service_process(**FAST)
    job = run_through_kills(service, tiny_network, trials=60, kills=12, seed=seed)
    check_nothing_lost_nothing_doubled(sqlite(service.data_dir), job)  # type: ignore[attr-defined]
