"""The versions of the cost model over HTTP, without a worker: what is answered, and what is refused and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crosstune.db.engine import transaction
from crosstune.db.repositories import artifacts, cost_models, devices, projects, records, targets, workloads
from crosstune.db.repositories.cost_models import CostModelStatus
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from tests.service.api.conftest import TRACE, sha256

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

RETRAIN = "/v1/cost-models/retrain"


def trained(api: Api, **scores: float) -> str:
    """A version whose training is over, judged beside others: top-1 by version, `own` its own."""
    model = api.made(api.post(RETRAIN))
    rows = {
        model["id"] if version == "own" else version: [
            {"workload": str(n), "target": "here", "values": dict.fromkeys(("top1", "top5", "pairwise"), top1)}
            for n in range(5)
        ]
        for version, top1 in scores.items()
    }
    stored = api.app.state.services.store
    file = api.settings.data_dir / "model.tar"
    file.write_bytes(b"a model")
    kept = stored.put_file("default", "cost-model", file)
    with transaction(api.engine) as connection:
        artifact = artifacts.add(
            connection,
            project_id="default",
            sha256=kept.sha256,
            kind="cost-model",
            size_bytes=kept.size_bytes,
            uri=kept.uri,
            owner=model["id"],
        )
        cost_models.finish(
            connection,
            model["id"],
            data_fingerprint="5" * 64,
            card={
                "judged": {"fingerprint": "6" * 64, "scores": rows},
                "training": {"groups": 5},
                "code_version": "0.1",
            },
            artifact_id=artifact.id,
        )
    return str(model["id"])


def test_the_shipped_version_is_in_use_from_the_start(api: Api) -> None:
    page = api.made(api.get("/v1/cost-models"))
    assert [(one["id"], one["state"]) for one in page["items"]] == [("shipped", "champion")]
    assert api.made(api.get("/v1/cost-models/shipped"))["progress"] == []


def test_a_retraining_is_a_step_that_any_machine_can_do(api: Api) -> None:
    target = api.target()
    body = {"targets": ["two-cores"], "operators": ["conv2d"], "kind": "xgboost", "labels": {"team": "vision"}}
    model = api.made(api.post(RETRAIN, body, key="k"))
    assert (model["state"], model["version"], model["kind"]) == ("training", 1, "xgboost")
    ((_, queue, given),) = [step for step in api.steps() if step[0] == "retrain"]
    assert (queue, given["model_id"]) == ("training", model["id"])
    assert given["request"]["targets"] == [target["id"]]
    assert given["request"]["pruning"]["keep"] == 0.8
    again = api.post(RETRAIN, body, key="k")
    assert again.headers["idempotency-replayed"] == "true" and again.json() == model
    shown = api.made(api.get(f"/v1/cost-models/{model['id']}"))
    assert shown["request"]["operators"] == ["conv2d"] and shown["quality"] is None


def test_two_retrainings_at_once_are_refused_with_the_one_that_runs(api: Api) -> None:
    running = api.made(api.post(RETRAIN))
    problem = api.problem(api.post(RETRAIN), 409, "retrain-running")
    assert problem["version"] == running["id"]
    cancelled = api.made(api.post(f"/v1/cost-models/{running['id']}/cancel"))
    assert cancelled["state"] == "cancelling"
    api.problem(api.post(RETRAIN), 409, "retrain-running")
    with transaction(api.engine) as connection:
        cost_models.end(connection, running["id"], CostModelStatus.CANCELLED, "it was cancelled")
    api.problem(api.post(f"/v1/cost-models/{running['id']}/cancel"), 409, "cost-model-not-training")
    api.made(api.post(RETRAIN))


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"targets": ["nobody"]}, 404, "target-unknown"),
        ({"base": "mdl_00000000-0000-7000-8000-000000000000"}, 404, "cost-model-unknown"),
        ({"base": "../etc"}, 422, "invalid-request"),
        ({"pruning": {"keep": 0}}, 422, "invalid-request"),
        ({"operators": ["conv2d%"]}, 422, "invalid-request"),
        ({"kind": "pickle"}, 422, "invalid-request"),
        ({"epoch": 3}, 422, "invalid-request"),
    ],
)
def test_a_request_that_cannot_be_met_begins_nothing(api: Api, body: dict[str, Any], status: int, slug: str) -> None:
    api.problem(api.post(RETRAIN, body), status, slug)
    assert api.steps() == []
    assert len(api.made(api.get("/v1/cost-models"))["items"]) == 1


def test_a_better_version_is_promoted_and_rolled_back(api: Api) -> None:
    version = trained(api, own=0.9, shipped=0.8)
    comparison = api.made(api.get("/v1/cost-models/compare", params={"first": version, "second": "shipped"}))
    assert comparison["may_replace"] and comparison["groups"] == 5
    assert comparison["overall"]["top1"]["mean"] == pytest.approx(0.1)
    assert api.made(api.post(f"/v1/cost-models/{version}/promote"))["state"] == "champion"
    assert [one["state"] for one in api.made(api.get("/v1/cost-models"))["items"]] == ["champion", "retired"]
    assert api.made(api.post("/v1/cost-models/roll-back"))["id"] == "shipped"
    assert [one["state"] for one in api.made(api.get("/v1/cost-models"))["items"]] == ["retired", "champion"]
    api.problem(api.post("/v1/cost-models/roll-back"), 409, "nothing-to-roll-back")


def test_a_version_that_is_no_better_stays_a_candidate_and_the_champion_in_use(api: Api) -> None:
    version = trained(api, own=0.7, shipped=0.8)
    problem = api.problem(api.post(f"/v1/cost-models/{version}/promote"), 409, "promotion-refused")
    assert problem["champion"] == "shipped" and len(problem["reasons"]) == 2
    assert [one["state"] for one in api.made(api.get("/v1/cost-models"))["items"]] == ["candidate", "champion"]


def test_versions_that_were_never_judged_together_are_not_compared(api: Api) -> None:
    first = trained(api, own=0.9, shipped=0.8)
    api.made(api.post(f"/v1/cost-models/{first}/promote"))
    second = trained(api, own=0.95, shipped=0.8)
    api.problem(
        api.get("/v1/cost-models/compare", params={"first": second, "second": first}), 409, "not-judged-together"
    )
    api.problem(api.post(f"/v1/cost-models/{second}/promote"), 409, "not-judged-together")


def test_what_failed_or_is_unknown_cannot_be_used(api: Api) -> None:
    running = api.made(api.post(RETRAIN))["id"]
    api.problem(api.post(f"/v1/cost-models/{running}/promote"), 409, "cost-model-without-files")
    with transaction(api.engine) as connection:
        cost_models.end(connection, running, CostModelStatus.FAILED, "no record fits")
    assert api.made(api.get(f"/v1/cost-models/{running}"))["failure"] == "no record fits"
    api.problem(api.get(f"/v1/cost-models/{running}/files"), 409, "cost-model-without-files")
    api.problem(api.get("/v1/cost-models/shipped/files"), 409, "cost-model-without-files")
    api.problem(api.get("/v1/cost-models/shipped/training-set"), 409, "cost-model-without-files")
    api.problem(api.get("/v1/cost-models/mdl_00000000-0000-7000-8000-000000000000"), 404, "cost-model-unknown")


def test_the_files_of_a_version_come_with_their_sha256(api: Api) -> None:
    version = trained(api, own=0.9, shipped=0.8)
    found = api.get(f"/v1/cost-models/{version}/files")
    assert found.content == b"a model" and len(found.headers["etag"]) == 66
    shown = api.made(api.get(f"/v1/cost-models/{version}"))
    assert shown["quality"]["metrics"]["top1"]["mean"] == pytest.approx(0.9)
    assert shown["data_fingerprint"] == "5" * 64 and shown["code_version"] == "0.1"


def measured_by(api: Api, device: str, latency_s: float, schedule: str) -> None:
    """One full measurement of the first workload of a network on the target."""
    with transaction(api.engine) as connection:
        records.store(
            connection,
            target_key=targets.get(connection, "two-cores").key,
            workload_key=workloads.get(connection, sha256("workload 0")).key,
            project_key=projects.get(connection).key,
            candidates=[
                NewCandidate(
                    sha256(schedule),
                    TRACE,
                    (NewMeasurement((latency_s,), "full", device_key=devices.get(connection, device).key),),
                )
            ],
        )


def test_withdrawing_what_a_device_measured_marks_the_versions_trained_since(api: Api) -> None:
    target = api.target()["id"]
    api.network()
    for host in ("bad", "good"):
        api.worker(target, host)
    measured_by(api, "bad", 1e-3, "fast")
    measured_by(api, "good", 2e-3, "slow")
    version = trained(api, own=0.9, shipped=0.8)
    body = {"device": "bad", "reason": "its clock was wrong"}
    found = api.made(api.post("/v1/records/withdraw", body))
    assert found == {"measurements": 1, "records": 1, "cost_models": [version]}
    assert api.made(api.get(f"/v1/cost-models/{version}"))["withdrawn"] == ["its clock was wrong"]
    (left,) = api.made(api.get("/v1/records"))["items"]
    assert (left["latency_s"], left["schedule"]) == (2e-3, sha256("slow"))
    assert api.made(api.post("/v1/records/withdraw", body)) == {"measurements": 0, "records": 0, "cost_models": []}


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"reason": "everything"}, 422, "invalid-request"),
        ({"device": "bad"}, 422, "invalid-request"),
        ({"device": "nobody", "reason": "?"}, 404, "device-unknown"),
        ({"worker": "wrk_nobody", "reason": "?"}, 404, "worker-unknown"),
    ],
)
def test_a_withdrawal_names_somebody_who_measured_and_a_reason(
    api: Api, body: dict[str, Any], status: int, slug: str
) -> None:
    api.problem(api.post("/v1/records/withdraw", body), status, slug)
