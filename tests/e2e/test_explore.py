"""A target that knows nothing measures what another one knows, without a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crosstune import Client
from crosstune.service.client import ApiError
from crosstune.service.schemas.jobs import Budget, JobIn, JobState
from crosstune.service.schemas.targets import DetectIn, ExploreIn, TargetIn

TRIALS = 24


@pytest.mark.slow
def test_a_new_target_measures_what_another_one_knows(
    service_process: Callable[..., object], tiny_network: Path
) -> None:
    service = service_process()
    with Client(service.start()) as client:  # type: ignore[attr-defined]
        known = client.detect_target(DetectIn(mcpu="x86-64-v2", mattr=()))
        network = client.wait_network(client.upload_network(tiny_network).id)
        body = JobIn(network=network.id, target=known.id, budget=Budget(trials=TRIALS), whole_budget=True)
        job = client.wait(client.create_job(body).id)
        assert job.state is JobState.SUCCEEDED, job.failure

        new = client.detect_target()
        assert client.explore_target(new.id, ExploreIn(trials=100)).kind == "explore"
        until_s = time.monotonic() + 120
        while time.monotonic() < until_s:
            found = client.collect(client.list_records, target=new.id)
            if {record.workload for record in found} == {task.workload for task in job.tasks}:
                break
            time.sleep(0.3)
        assert {record.workload for record in found} == {task.workload for task in job.tasks}
        assert "transfer" in {record.source for record in found}

        nobody = client.create_target(TargetIn(mcpu="znver1", cores=64, model="Somewhere else"))
        with pytest.raises(ApiError, match="device"):
            client.explore_target(nobody.id)
