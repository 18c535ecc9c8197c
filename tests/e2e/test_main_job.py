"""The whole path on a real service: HTTP, database, import, search, build, measure, artifact, best schedules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from crosstune import Client, load
from crosstune.service.client import ApiError
from crosstune.service.schemas.builds import BuildIn
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn, JobResume, JobState

TRIALS = 24


@pytest.fixture
def client(service_process: Callable[..., object]) -> Client:
    service = service_process()
    return Client(service.start())  # type: ignore[attr-defined]


def tune(client: Client, path: Path, trials: int = TRIALS, target: str | None = None) -> JobDetail:
    target = target or client.detect_target().id
    network = client.wait_network(client.upload_network(path).id)
    body = JobIn(network=network.id, target=target, budget=Budget(trials=trials), whole_budget=True)
    return client.wait(client.create_job(body).id)


def test_a_network_comes_back_tuned_verified_and_can_be_asked_for(
    client: Client, tiny_network: Path, tmp_path: Path
) -> None:
    job = tune(client, tiny_network)
    assert job.state is JobState.SUCCEEDED, job.failure
    assert job.trials >= TRIALS
    assert all(task.best_latency_s is not None and task.untuned_latency_s is not None for task in job.tasks)

    build = client.get_build(job.build or "")
    assert build.workloads_applied == build.workloads_total == len(job.tasks)
    assert build.tuned_latency_s and build.untuned_latency_s and build.reference_latency_s

    best = client.best_schedules(job.target, network=job.network)
    assert {schedule.label for schedule in best.schedules} == {"measured"}

    network = load(client.download_artifact(build.id, tmp_path / "artifact"))
    given = np.random.default_rng().standard_normal((1, 3, 16, 16)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(tiny_network)).run(None, {"input": given})[0]
    np.testing.assert_allclose(network(given)["logits"], wanted, rtol=1e-4, atol=1e-4)

    exported = list(client.export_records(target=job.target))
    assert len(exported) >= job.trials
    kinds = [event.kind for event in client.job_events(job.id)]
    assert kinds[0] == kinds[-1] == "state" and "round" in kinds and "build" in kinds

    again = client.wait(client.resume_job(job.id, JobResume(budget=Budget(trials=8))).id)
    assert again.state is JobState.SUCCEEDED and again.trials > job.trials
    schedules = [record.schedule for record in client.export_records(target=job.target)]
    assert len(schedules) == len({(record.workload, record.schedule) for record in client.export_records()})

    rebuilt = client.wait_build(client.create_build(BuildIn(network=job.network, target=job.target)).id)
    assert rebuilt.state == "succeeded", rebuilt.failure


def test_a_refused_network_says_what_was_wrong_and_fails_the_job_that_waits_for_it(
    client: Client, tiny_network: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(tiny_network.read_bytes()[:-500])
    target = client.detect_target().id
    network = client.upload_network(damaged)
    job = client.create_job(JobIn(network=network.id, target=target, budget=Budget(trials=8)))
    ended = client.wait(job.id)
    assert ended.state is JobState.FAILED and ended.failure is not None
    assert "import" in ended.failure.detail
    with pytest.raises(ApiError, match="refused"):
        client.create_job(JobIn(network=network.id, target=target, budget=Budget(trials=8)))


def test_a_cancelled_job_stops_within_seconds_and_keeps_what_it_measured(client: Client, tiny_network: Path) -> None:
    target = client.detect_target().id
    network = client.wait_network(client.upload_network(tiny_network).id)
    job = client.create_job(JobIn(network=network.id, target=target, budget=Budget(seconds=600)))
    for event in client.job_events(job.id):
        if event.kind == "round":
            break
    assert client.cancel_job(job.id).state in {JobState.CANCELLING, JobState.CANCELLED}
    ended = client.wait(job.id, timeout_s=20)
    assert ended.state is JobState.CANCELLED
    assert list(client.export_records(target=target))


def test_audit_measures_stored_bests_again(service_process: Callable[..., object], tiny_network: Path) -> None:
    service = service_process()
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        tune(client, tiny_network, trials=8)
    command = [sys.executable, "-m", "crosstune.service.cli", "--data-dir", str(service.data_dir)]  # type: ignore[attr-defined]
    done = subprocess.run([*command, "audit", "--count", "3", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"audited": 3' in done.stdout
