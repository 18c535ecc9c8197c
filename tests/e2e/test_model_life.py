"""The model's life over HTTP on a real service: tune, retrain, compare, promote, tune again, roll back."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crosstune import Client
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.cost_model.hold_out import is_judged
from crosstune.db import migrate
from crosstune.db.engine import create_engine, transaction
from crosstune.db.repositories import projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.client import ApiError
from crosstune.service.schemas.cost_models import CostModelDetail, CostModelKind, JudgeIn, RetrainIn
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn, JobResume, JobState
from crosstune.service.schemas.steps import StepDetail
from crosstune.tuner.archive import unpack
from tests.strange_device import StrangeWorkload, strange_workloads

TRIALS = 12
JUDGED = 4
FAST = RetrainIn(kind=CostModelKind.XGBOOST, shipped_data=False)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(one: StrangeWorkload, judged: bool) -> str:
    """A key of the compute graph that is judged by, or learnt from."""
    return next(key for n in range(1000) if is_judged(key := sha256(f"{one.sha256} {n}")) == judged)


def measured_on_a_strange_device(data_dir: Path) -> None:
    """Fills the database of a service that does not run yet."""
    url = f"sqlite:///{data_dir / 'crosstune.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    with transaction(engine) as connection:
        spec = {"kind": "llvm", "mcpu": "strange", "cores": 2, "model": "Strange 1", "mattr": [], "triple": ""}
        target, _ = targets.register(connection, identity=sha256("strange"), name="strange", spec=spec)
        for number, one in enumerate(strange_workloads(20)):
            workload = workloads.get_or_create(
                connection,
                sha256=one.sha256,
                version_free_key=keyed(one, judged=number < JUDGED),
                name=one.name,
                module=one.module,
                flops=1e6,
                args=[["float32", [1, 8]]],
                output_count=1,
                tvm_version="0.27.0",
                pipeline_version=1,
            )
            records.store(
                connection,
                target_key=target.key,
                workload_key=workload.key,
                project_key=projects.get(connection).key,
                candidates=[
                    NewCandidate(
                        sha256(each.trace),
                        json.loads(each.trace),
                        (NewMeasurement((each.latency_s,), "quick"),),
                        features=each.features,
                        feature_layout=FEATURE_LAYOUT,
                    )
                    for each in one.programs
                ],
            )
    engine.dispose()


@pytest.fixture
def client(service_process: Callable[..., object]) -> Iterator[Client]:
    service = service_process()
    measured_on_a_strange_device(service.data_dir)  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        yield client


def tune(client: Client, path: Path, seed: int) -> JobDetail:
    network = client.wait_network(client.upload_network(path).id)
    target = client.detect_target().id
    body = JobIn(network=network.id, target=target, budget=Budget(trials=TRIALS), whole_budget=True, seed=seed)
    job = client.wait(client.create_job(body).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    return job


def trained(client: Client, body: RetrainIn) -> CostModelDetail:
    model = client.retrain_cost_model(body)
    until_s = time.monotonic() + 120
    while (found := client.get_cost_model(model.id)).state == "training" and time.monotonic() < until_s:
        time.sleep(0.2)
    return found


def judged_again(client: Client, version: str) -> None:
    step = client.judge_cost_models(JudgeIn(versions=(version,))).step
    until_s = time.monotonic() + 120
    while (found := client.get_step(step)).state in ("queued", "running") and time.monotonic() < until_s:
        time.sleep(0.2)
    assert found.state == "done"


def test_a_retrained_version_lives_from_its_records_to_its_roll_back(
    client: Client, tiny_network: Path, tmp_path: Path
) -> None:
    assert tune(client, tiny_network, seed=0).cost_models == ["shipped"]

    version = trained(client, FAST)
    assert version.state == "candidate", version.failure
    assert version.quality is not None and version.quality.groups >= JUDGED
    assert [line["phase"] for line in version.progress][:3] == ["read", "pruned", "prepared"]

    archive = tmp_path / "learnt.tar"
    assert client.get_training_set(version.id, archive) == hashlib.sha256(archive.read_bytes()).hexdigest()
    learnt = DatasetFolder(unpack(archive, tmp_path))
    assert learnt.fingerprint() == version.data_fingerprint and learnt.totals()["records"] > 100

    comparison = client.compare_cost_models(version.id, "shipped")
    assert comparison.may_replace, comparison.reasons
    judged_again(client, version.id)
    again = client.compare_cost_models(version.id, "shipped")
    assert (again.groups, again.overall) == (comparison.groups, comparison.overall)
    assert client.promote_cost_model(version.id).state == "champion"

    second = tune(client, tiny_network, seed=1)
    assert second.cost_models == [version.id]
    proposed = {record.cost_model for record in client.collect(client.list_records, target=second.target)}
    assert proposed == {None, version.id}

    assert client.roll_back_cost_model().id == "shipped"
    resumed = client.wait(client.resume_job(second.id, JobResume(budget=Budget(trials=8))).id)
    assert resumed.cost_models == [version.id, "shipped"]


def test_what_cannot_be_learnt_from_fails_with_a_sentence_and_changes_nothing(client: Client) -> None:
    nothing = trained(client, FAST.model_copy(update={"operators": ("softmax",)}))
    assert nothing.state == "failed" and nothing.failure is not None and "no record fits" in nothing.failure
    with pytest.raises(ApiError, match="no files"):
        client.promote_cost_model(nothing.id)
    assert client.get_cost_model("shipped").state == "champion"


def test_a_training_that_is_cancelled_ends_within_seconds(client: Client) -> None:
    model = client.retrain_cost_model(RetrainIn(kind=CostModelKind.XGBOOST))  # with the shipped data: it takes longer
    time.sleep(1.0)
    assert client.cancel_retraining(model.id).state == "cancelling"
    until_s = time.monotonic() + 10
    while client.get_cost_model(model.id).state == "cancelling" and time.monotonic() < until_s:
        time.sleep(0.1)
    assert client.get_cost_model(model.id).state == "cancelled"
    assert trained(client, FAST).state == "candidate"


def test_a_training_whose_service_was_killed_goes_on_after_a_restart(
    service_process: Callable[..., object],
) -> None:
    service = service_process(CROSSTUNE_LEASE_S="2")
    measured_on_a_strange_device(service.data_dir)  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        version = client.retrain_cost_model(FAST).id
        while not client.get_cost_model(version).progress:
            time.sleep(0.05)
    service.kill()  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        until_s = time.monotonic() + 60
        while (found := client.get_cost_model(version)).state == "training" and time.monotonic() < until_s:
            time.sleep(0.2)
    assert found.state == "candidate", found.failure
    assert [line["phase"] for line in found.progress].count("read") == 1


def test_what_passes_its_gates_is_promoted_at_once_where_that_is_asked_for(
    service_process: Callable[..., object],
) -> None:
    service = service_process(CROSSTUNE_AUTO_PROMOTE="true")
    measured_on_a_strange_device(service.data_dir)  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        first = trained(client, FAST)
        assert first.state == "champion", first.failure
        again = trained(client, FAST)
        assert again.state == "candidate", "it is no better"
        assert client.get_cost_model(first.id).state == "champion"


@pytest.mark.slow
def test_a_champion_whose_files_are_damaged_is_stood_in_for_and_can_be_replaced(
    service_process: Callable[..., object], tiny_network: Path
) -> None:
    service = service_process()
    measured_on_a_strange_device(service.data_dir)  # type: ignore[attr-defined]
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        version = trained(client, FAST)
        client.promote_cost_model(version.id)
        for path in (service.data_dir / "artifacts" / "default" / "cost-model").rglob("*"):  # type: ignore[attr-defined]
            if path.is_file():
                path.write_bytes(b"damaged")
        shutil.rmtree(service.data_dir / "models", ignore_errors=True)  # type: ignore[attr-defined]
        job = tune(client, tiny_network, seed=0)
        assert job.cost_models == ["shipped"]
        notes = {event.data["note"] for event in client.job_events(job.id) if event.kind == "round"}
        assert all("the shipped one ranks instead" in note for note in notes)
        assert trained(client, FAST.model_copy(update={"seed": 1})).state == "candidate"
        assert client.roll_back_cost_model().id == "shipped"


@pytest.mark.slow
def test_what_one_service_measured_is_tried_first_by_another(
    service_process: Callable[..., object], tiny_network: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "learnt.tar"
    with Client(service_process("one").start()) as one:  # type: ignore[attr-defined]
        job = tune(one, tiny_network, seed=0)
        version = trained(one, RetrainIn(kind=CostModelKind.XGBOOST))
        assert version.state == "candidate", version.failure
        one.get_training_set(version.id, archive)
    with Client(service_process("other").start()) as other:  # type: ignore[attr-defined]
        network = other.wait_network(other.upload_network(tiny_network).id)
        target = other.detect_target().id
        assert ended(other, other.import_records(archive.read_bytes()).step).state == "done"
        imported = other.collect(other.list_records, target=target)
        assert imported and {record.status for record in imported} == {"imported"}
        best = other.best_schedules(target, network=network.id).schedules
        assert not {one.label for one in best} & {"measured"}
        again = ended(other, other.import_records(archive.read_bytes(), key="again").step)
        assert "0 loaded" in (again.message or "")
        tuned = tune(other, tiny_network, seed=1)
        assert tuned.target == target and job.trials
        rounds = [event.data for event in other.job_events(tuned.id) if event.kind == "round"]
        tried = {record.workload for record in imported}
        assert sum("transfer" in one["sources"] for one in rounds) >= len(tried) / 2
        nonsense = ended(other, other.import_records(b"no archive").step)
        assert nonsense.state == "failed" and "cannot be read" in (nonsense.message or "")


def ended(client: Client, step: str) -> StepDetail:
    until_s = time.monotonic() + 60
    while (found := client.get_step(step)).state in ("queued", "running") and time.monotonic() < until_s:
        time.sleep(0.1)
    return found
