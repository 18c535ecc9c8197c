"""Builds of a network that was never tuned on their target: nothing is measured, nothing wrong gets in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from crosstune import Client, load
from crosstune.db.engine import create_engine, transaction
from crosstune.db.repositories import projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.schemas.builds import BuildIn, BuildOut
from crosstune.service.schemas.targets import DetectIn
from crosstune.tuner.contracts import sha256_json


@pytest.fixture
def service(service_process: Callable[..., Any]) -> Any:
    return service_process()


def build(client: Client, network: str, target: str) -> BuildOut:
    made = client.wait_build(client.create_build(BuildIn(network=network, target=target)).id)
    assert made.state == "succeeded", made.failure
    return made


def store(folder: Path, target: str, workload: str, trace: Any) -> None:
    """A schedule of the workload as somebody could have measured it on another target."""
    engine = create_engine(f"sqlite:///{folder / 'crosstune.db'}")
    timed = NewMeasurement(conditions={}, latencies_s=(1e-5,) * 3, quality="full", invalidity=None)
    with transaction(engine) as connection:
        records.store(
            connection,
            target_key=targets.get(connection, target).key,
            workload_key=workloads.get(connection, workload).key,
            project_key=projects.get(connection).key,
            candidates=[NewCandidate(sha256_json(trace), trace, source="search", measurements=(timed,))],
        )
    engine.dispose()


def test_a_network_that_was_never_tuned_is_built_from_what_is_predicted_and_known_elsewhere(
    service: Any, tiny_network: Path, tmp_path: Path
) -> None:
    with Client(service.start()) as client:
        here = client.detect_target().id
        there = client.detect_target(DetectIn(name="one-core", cores=1)).id
        network = client.wait_network(client.upload_network(tiny_network).id).id
        first = build(client, network, there)
        predicted = {pin.workload: pin for pin in first.schedules}
        assert predicted and {pin.label for pin in predicted.values()} == {"predicted"}
        assert len(predicted) + len(first.defaults) == first.manifest["workloads_total"] + len(first.defaults)
        assert not client.collect(client.list_records, 10)

        # What was measured elsewhere comes along; a trace that fits no workload does not stop the others.
        good, bad, *_ = predicted
        traces = stored_traces(service.data_dir, first.id)
        store(service.data_dir, there, good, traces[good])
        store(service.data_dir, there, bad, [[["GetSBlock", [], ["no such block", "main"], ["b0"]]], []])
        made = build(client, network, here)
        labels = {pin.workload: pin.label for pin in made.schedules}
        assert labels[good] == "transferred" and bad not in labels
        assert set(labels.values()) <= {"transferred", "predicted"}
        (left_out,) = [one for one in made.defaults if one.workload == bad]
        assert left_out.label == "default" and "replay" in left_out.reason
        entries = {each["workload_sha256"]: each for each in made.manifest["schedules"]}
        assert (entries[good]["label"], entries[bad]["label"]) == ("transferred", "default")
        assert entries[bad]["reason"] == left_out.reason
        loaded = load(client.download_artifact(made.id, tmp_path / "artifact"))
    given = np.random.default_rng().standard_normal((1, 3, 16, 16)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(tiny_network)).run(None, {"input": given})[0]
    np.testing.assert_allclose(loaded(given)["logits"], wanted, rtol=1e-4, atol=1e-4)


def stored_traces(folder: Path, build_id: str) -> dict[str, Any]:
    """Of predicted schedules, which no record holds."""
    from crosstune.db.repositories import builds

    engine = create_engine(f"sqlite:///{folder / 'crosstune.db'}")
    with transaction(engine) as connection:
        pins = builds.get(connection, build_id).schedules
    engine.dispose()
    return {pin["workload"]: pin["trace"] for pin in pins if "trace" in pin}
