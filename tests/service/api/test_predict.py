"""Schedules are ranked over HTTP from their decisions alone, in a child of the service."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crosstune.cost_model.metrics import pairwise_accuracy_without_ties
from crosstune.db.engine import transaction
from crosstune.db.repositories import projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from tests.conftest import sha
from tests.strange_device import StrangeWorkload, strange_workloads

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

PATH = "/v1/cost-models/shipped/predict"


@pytest.fixture(scope="module")
def known() -> StrangeWorkload:
    return strange_workloads(1)[0]


@pytest.fixture
def body(api: Api, known: StrangeWorkload) -> dict[str, Any]:
    """The schedules of one workload that have the most common instructions."""
    with transaction(api.engine) as connection:
        workloads.get_or_create(
            connection,
            sha256=known.sha256,
            version_free_key=sha("graph"),
            name=known.name,
            module=known.module,
            flops=1e6,
            args=[["float32", [1, 8]]],
            output_count=1,
            tvm_version="0.27.0",
            pipeline_version=1,
        )
    traces = [json.loads(one.trace) for one in known.programs]
    shared = max((trace[0] for trace in traces), key=lambda instructions: sum(t[0] == instructions for t in traces))
    return {
        "workload": known.sha256,
        "target": api.target()["id"],
        "instructions": shared,
        "decisions": [trace[1] for trace in traces if trace[0] == shared],
    }


def test_every_schedule_gets_a_score(api: Api, body: dict[str, Any]) -> None:
    found = api.made(api.post(PATH, body))
    assert found["version"] == "shipped" and len(found["scores"]) == len(body["decisions"])
    assert len(set(found["scores"])) > len(found["scores"]) / 2
    assert api.made(api.post(PATH, body)) == found


def test_what_another_target_measured_is_heard(api: Api, body: dict[str, Any], known: StrangeWorkload) -> None:
    elsewhere = api.target(name="elsewhere", model="Strange 1")["id"]
    with transaction(api.engine) as connection:
        records.store(
            connection,
            target_key=targets.get(connection, elsewhere).key,
            workload_key=workloads.get(connection, known.sha256).key,
            project_key=projects.get(connection).key,
            candidates=[
                NewCandidate(sha(one.trace), json.loads(one.trace), (NewMeasurement((one.latency_s,), "quick"),))
                for one in known.programs
            ],
        )
    scores = np.array(api.made(api.post(PATH, body))["scores"])
    latency_s = {one.trace: one.latency_s for one in known.programs}
    traces = [json.dumps([body["instructions"], each], separators=(",", ":")) for each in body["decisions"]]
    speed = np.array([1.0 / latency_s[trace] for trace in traces])
    accuracy = pairwise_accuracy_without_ties(scores, speed)
    assert accuracy is not None and accuracy > 0.7


def test_a_child_that_dies_is_replaced(api: Api, body: dict[str, Any]) -> None:
    before = api.made(api.post(PATH, body))
    os.kill(api.app.state.services.predictor._child.pid, signal.SIGKILL)
    answer = api.post(PATH, body)
    if answer.status_code != 200:
        api.problem(answer, 503, "child-failed")
        answer = api.post(PATH, body)
    assert api.made(answer) == before


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"instructions": ["no instruction"]}, 422, "schedule-refused"),
        ({"decisions": [["no decision"]]}, 422, "invalid-request"),
        ({"decisions": [[[1, {"tiles": []}]]]}, 422, "invalid-request"),
        ({"decisions": []}, 422, "invalid-request"),
        ({"decisions": [[]] * 513}, 422, "invalid-request"),
        ({"workload": "0" * 64}, 404, "workload-unknown"),
        ({"target": "nobody"}, 404, "target-unknown"),
    ],
)
def test_what_is_no_schedule_is_refused(
    api: Api, body: dict[str, Any], change: dict[str, Any], status: int, slug: str
) -> None:
    api.problem(api.post(PATH, body | change), status, slug)
    api.made(api.post(PATH, body))
