"""Jobs over HTTP: submitted whole or not at all, started when their network is ready, cancelled and resumed."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from crosstune.db.engine import transaction
from crosstune.db.repositories import jobs, tasks, workers
from crosstune.db.repositories.jobs import JobState
from crosstune.db.tables import Job
from crosstune.service.jobs import start_job

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

BUDGET = {"trials": 100}


def _body(api: Api, **changes: Any) -> dict[str, Any]:
    return {"network": "net", "target": api.target()["id"], "budget": BUDGET, **changes}


def _submit(api: Api, **changes: Any) -> dict[str, Any]:
    return api.made(api.post("/v1/jobs", _body(api, **changes)))


def _move(api: Api, job: dict[str, Any], *states: JobState) -> None:
    with transaction(api.engine) as connection:
        for state in states:
            jobs.transition(connection, job["id"], state)


def test_a_job_comes_with_its_tasks_its_first_round_and_its_first_event(api: Api) -> None:
    network, target = api.network(), api.target()
    api.worker(target["id"])
    response = api.post(
        "/v1/jobs",
        {
            "network": "net",
            "target": "two-cores",
            "budget": {"trials": 100, "seconds": 60},
            "labels": {"team": "vision"},
            "priority": 5,
            "seed": 7,
        },
    )
    assert response.status_code == 201
    job = response.json()
    assert (job["state"], job["network"], job["target"]) == ("queued", network["id"], target["id"])
    assert job["budget"] == {"trials": 100, "seconds": 60.0}
    assert (job["labels"], job["priority"], job["seed"], job["waiting_for"]) == ({"team": "vision"}, 5, 7, None)
    assert [task["weight"] for task in job["tasks"]] == [1, 2]
    assert ("round", f"hw.{target['id']}", {"job_id": job["id"]}) in api.steps()
    assert api.get(f"/v1/jobs/{job['id']}").json() == job
    with transaction(api.engine) as connection:
        assert jobs.get(connection, job["id"]).event_sequence == 1


@pytest.mark.parametrize(
    ("budget", "where"),
    [
        ({}, "body.budget"),
        ({"trials": 0}, "body.budget.trials"),
        ({"trials": -1}, "body.budget.trials"),
        ({"trials": 1.5}, "body.budget.trials"),
        ({"seconds": 0}, "body.budget.seconds"),
        ({"seconds": -3}, "body.budget.seconds"),
        ({"seconds": "Infinity"}, "body.budget.seconds"),
        ({"trials": None, "seconds": None}, "body.budget"),
        ({"trials": 10, "hours": 1}, "body.budget.hours"),
    ],
)
def test_a_budget_that_allows_nothing_is_refused(api: Api, budget: dict[str, Any], where: str) -> None:
    response = api.post("/v1/jobs", {"network": "n", "target": "t", "budget": budget})
    assert where in [item["where"] for item in api.problem(response, 422, "invalid-request")["errors"]]


def test_an_unknown_network_or_target_makes_no_job(api: Api) -> None:
    api.network()
    api.problem(api.post("/v1/jobs", _body(api, network="other")), 404, "network-unknown")
    api.problem(api.post("/v1/jobs", _body(api, target="other")), 404, "target-unknown")
    assert api.get("/v1/jobs").json()["items"] == []


def test_a_refused_network_makes_no_job(api: Api) -> None:
    api.refuse(api.upload(name="net").json()["id"])
    problem = api.problem(api.post("/v1/jobs", _body(api)), 409, "network-unusable")
    assert problem["code"] == "unsupported-operator" and "Foo" in problem["detail"]


def test_without_a_device_the_job_waits_and_says_for_what(api: Api) -> None:
    api.network()
    job = _submit(api)
    assert job["state"] == "waiting_for_device"
    assert job["target"] in job["waiting_for"]


def test_with_a_device_but_no_live_worker_the_job_says_so(api: Api) -> None:
    api.network()
    machine = api.made(api.post("/v1/targets/detect"))
    job = _submit(api, target=machine["id"])
    assert job["state"] == "queued"
    assert "no live worker" in job["waiting_for"]


def test_a_running_job_says_that_nobody_is_left_to_go_on_with_it_and_since_when(api: Api) -> None:
    api.network()
    machine = api.made(api.post("/v1/targets/detect"))
    job = _submit(api, target=machine["id"])
    with transaction(api.engine) as connection:
        jobs.transition(connection, job["id"], jobs.JobState.RUNNING, message="")
        worker = workers.register(connection, host=socket.gethostname(), pid=1, version="1", schema="1")
    assert api.get(f"/v1/jobs/{job['id']}").json()["waiting_for"] is None
    heard = datetime.now(UTC) - timedelta(seconds=120)
    with transaction(api.engine) as connection:
        workers.beat(connection, worker.id, now=heard.timestamp())
        connection.execute(update(Job).values(created_at=heard.timestamp() - 60))
    shown = api.get(f"/v1/jobs/{job['id']}").json()
    assert (shown["state"], datetime.fromisoformat(shown["waiting_since"])) == ("running", heard)
    assert "no live worker" in shown["waiting_for"]


def test_a_job_for_a_network_in_its_import_starts_when_that_is_done(api: Api) -> None:
    api.upload(b"\x08\x09 stands for an ONNX file: nothing here parses it" + b"net", name="net")
    job = _submit(api)
    assert (job["state"], job["tasks"]) == ("queued", [])
    assert "imported" in job["waiting_for"]
    assert [kind for kind, _, _ in api.steps()] == ["import"]
    api.network("net")
    for _ in range(2):
        with transaction(api.engine) as connection:
            start_job(connection, jobs.lock(connection, job["id"]))
    assert len(api.get(f"/v1/jobs/{job['id']}").json()["tasks"]) == 2
    assert [kind for kind, _, _ in api.steps()] == ["import", "round"]


def test_a_job_whose_network_is_refused_fails_with_the_reason(api: Api) -> None:
    network = api.upload(name="net").json()
    job = _submit(api)
    api.refuse(network["id"])
    with transaction(api.engine) as connection:
        start_job(connection, jobs.lock(connection, job["id"]))
    shown = api.get(f"/v1/jobs/{job['id']}").json()
    assert shown["state"] == "failed"
    assert shown["failure"]["code"] == "network-refused" and "Foo" in shown["failure"]["detail"]


def test_a_dry_run_tells_tasks_and_time_and_makes_nothing(api: Api) -> None:
    api.network()
    target = api.target()
    api.record(target["id"], 0, 0.002)
    before = api.steps()
    response = api.post("/v1/jobs?dry_run=true", _body(api, budget={"trials": 10, "seconds": 30}))
    assert response.status_code == 200
    plan = response.json()
    assert [(task["known"], task["best_latency_s"]) for task in plan["tasks"]] == [("measured", 0.002), ("none", None)]
    assert plan["estimated_seconds"] == 30 and plan["device_live"] is False
    assert plan["unsupported_operators"] == []
    unknown = api.post("/v1/jobs?dry_run=true", _body(api)).json()
    assert unknown["estimated_seconds"] is None and "nothing was measured" in unknown["estimate_basis"]
    assert api.get("/v1/jobs").json()["items"] == [] and api.steps() == before


def test_a_dry_run_says_what_tuning_is_expected_to_reach(api: Api) -> None:
    api.network()
    target = api.target(model="epyc-7452", mcpu="znver2", name="known")
    api.record(target["id"], 0, 0.002)
    plan = api.post("/v1/jobs?dry_run=true", _body(api, target="known")).json()
    measured, predicted = plan["tasks"]
    assert (measured["known"], measured["expected_latency_s"]) == ("measured", None)
    assert predicted["known"] == "predicted" and predicted["best_latency_s"] is None
    assert 0 < predicted["expected_low_s"] < predicted["expected_latency_s"] < predicted["expected_high_s"]
    assert plan["expected_latency_s"] == pytest.approx(0.002 + 2 * predicted["expected_latency_s"], rel=0.05)


def test_a_dry_run_estimates_from_earlier_jobs(api: Api) -> None:
    api.network()
    job = _submit(api)
    with transaction(api.engine) as connection:
        jobs.count(connection, job["id"], trials=50, searched_s=25.0)
    plan = api.post("/v1/jobs?dry_run=true", _body(api)).json()
    assert plan["estimated_seconds"] == pytest.approx(50.0)
    assert "2.00 trials per second" in plan["estimate_basis"]


def test_a_dry_run_needs_the_tasks(api: Api) -> None:
    api.upload(name="net")
    api.problem(api.post("/v1/jobs?dry_run=true", _body(api)), 409, "network-not-ready")


def test_without_a_key_a_second_submit_is_a_new_job_with_one_it_is_the_same(api: Api) -> None:
    api.network()
    body = _body(api)
    first, second = api.post("/v1/jobs", body, key="a"), api.post("/v1/jobs", body, key="a")
    assert (first.status_code, second.status_code, second.json()) == (201, 201, first.json())
    assert second.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert api.post("/v1/jobs", body).json()["id"] != first.json()["id"]
    assert api.post("/v1/jobs", body, key="b").json()["id"] != first.json()["id"]
    assert len(api.get("/v1/jobs").json()["items"]) == 3


def test_many_at_once_with_one_key_make_one_job(api: Api) -> None:
    api.network()
    body = _body(api)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/v1/jobs", body, key="same"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.get("/v1/jobs").json()["items"]) == 1


def test_a_key_cannot_be_used_for_other_work(api: Api) -> None:
    api.network()
    body = _body(api)
    api.made(api.post("/v1/jobs", body, key="a"))
    api.problem(api.post("/v1/jobs", body | {"seed": 1}, key="a"), 422, "idempotency-key-reused")
    api.problem(api.upload(key="a"), 422, "idempotency-key-reused")
    api.problem(api.post("/v1/jobs", body, key="x" * 201), 422, "invalid-request")
    assert len(api.get("/v1/jobs").json()["items"]) == 1


def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    api.network()
    api.problem(api.post("/v1/jobs", _body(api, network="other"), key="a"), 404, "network-unknown")
    assert api.post("/v1/jobs", _body(api), key="a").status_code == 201


def test_jobs_are_listed_by_state_network_target_and_label(api: Api) -> None:
    api.network()
    first = _submit(api, labels={"team": "vision", "run": "1"})
    second = _submit(api, labels={"team": "vision"})
    api.post(f"/v1/jobs/{second['id']}/cancel")

    def listed(query: str) -> list[str]:
        return [item["id"] for item in api.get(f"/v1/jobs?{query}").json()["items"]]

    assert listed("") == [second["id"], first["id"]]
    assert listed("state=cancelled") == [second["id"]]
    assert listed("label=team=vision&label=run=1") == [first["id"]]
    assert listed("label=team=speech") == []
    assert listed(f"network=net&target={first['target']}") == [second["id"], first["id"]]
    api.problem(api.get("/v1/jobs?network=other"), 404, "network-unknown")
    for label in ("team", "=vision", "team=%00"):
        api.problem(api.get(f"/v1/jobs?label={label}"), 422, "invalid-request")


def test_a_waiting_job_is_cancelled_at_once_and_twice_is_once(api: Api) -> None:
    api.network()
    job = _submit(api)
    for _ in range(2):
        assert api.made(api.post(f"/v1/jobs/{job['id']}/cancel"))["state"] == "cancelled"
    assert "round" not in [kind for kind, _, _ in api.steps()]
    api.problem(api.post("/v1/jobs/job_unknown/cancel"), 404, "job-unknown")


def test_a_job_that_has_succeeded_cannot_be_cancelled(api: Api) -> None:
    api.network()
    job = _submit(api)
    _move(api, job, JobState.RUNNING, JobState.BUILDING, JobState.SUCCEEDED)
    api.problem(api.post(f"/v1/jobs/{job['id']}/cancel"), 409, "job-is-over")


def test_an_ended_job_goes_on_with_more_budget(api: Api) -> None:
    api.network()
    job = _submit(api)
    path = f"/v1/jobs/{job['id']}/resume"
    api.problem(api.post(path, {"budget": BUDGET}), 409, "job-not-over")
    _move(api, job, JobState.RUNNING, JobState.BUILDING, JobState.SUCCEEDED)
    with transaction(api.engine) as connection:
        jobs.count(connection, job["id"], trials=100)
        connection.exec_driver_sql("UPDATE steps SET state = 'done'")
    api.problem(api.post(path, {"budget": {"seconds": 5}}), 422, "budget-refused")
    first = api.post(path, {"budget": {"trials": 50}}, key="more")
    assert first.status_code == 200
    assert first.json()["budget"]["trials"] == 150
    assert api.post(path, {"budget": {"trials": 50}}, key="more").json() == first.json()
    assert [kind for kind, _, _ in api.steps()] == ["round"]


def test_a_job_whose_network_was_deleted_cannot_go_on(api: Api) -> None:
    api.network()
    job = _submit(api)
    api.post(f"/v1/jobs/{job['id']}/cancel")
    api.client.delete("/v1/networks/net")
    api.problem(api.post(f"/v1/jobs/{job['id']}/resume", {"budget": BUDGET}), 409, "network-deleted")
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def _finish_rounds(api: Api, job: dict[str, Any], trials: int, seconds: float, *latencies_s: float) -> None:
    with transaction(api.engine) as connection:
        for task in tasks.of_job(connection, job["id"]):
            for latency_s in latencies_s:
                tasks.count_round(
                    connection,
                    task.key,
                    trials=trials,
                    searched_s=seconds,
                    best_latency_s=latency_s,
                    default_latency_s=latencies_s[0],
                    exhausted=False,
                )


def test_a_searching_job_shows_what_is_to_be_expected_once_every_task_has_a_latency(api: Api) -> None:
    api.network()
    job = _submit(api)
    _move(api, job, JobState.RUNNING)
    assert api.get(f"/v1/jobs/{job['id']}").json()["outlook"] is None
    _finish_rounds(api, job, 8, 2.0, 2e-3, 1e-3)
    found = api.get(f"/v1/jobs/{job['id']}").json()["outlook"]
    # 100 trials are left, a quarter of a second each; the second task is called twice.
    assert found["seconds_left"] == pytest.approx(25, abs=10)
    assert 0 < found["latency_s"] < 3e-3
    assert 0 < found["gain_per_minute"] < 1
    _move(api, job, JobState.BUILDING)
    assert api.get(f"/v1/jobs/{job['id']}").json()["outlook"] is None


def test_a_job_that_is_to_use_its_whole_budget_says_so(api: Api) -> None:
    api.network()
    assert _submit(api)["whole_budget"] is False
    assert _submit(api, whole_budget=True)["whole_budget"] is True


@pytest.mark.parametrize(("ended", "whole"), [(JobState.SUCCEEDED, True), (JobState.FAILED, False)])
def test_a_job_that_had_succeeded_uses_what_it_is_resumed_with(api: Api, ended: JobState, whole: bool) -> None:
    api.network()
    job = _submit(api)
    _move(api, job, JobState.BUILDING, ended)
    resumed = api.made(api.post(f"/v1/jobs/{job['id']}/resume", {"budget": {"trials": 5}}))
    assert resumed["whole_budget"] is whole
