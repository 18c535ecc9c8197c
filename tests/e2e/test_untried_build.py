"""Builds of a network that was never tuned on their target: nothing is measured, nothing wrong gets in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosstune import Client, load
from crosstune.db.engine import create_engine, transaction
from crosstune.db.repositories import projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.schemas.builds import BuildIn, BuildOut
from crosstune.service.schemas.jobs import Budget, JobIn
from crosstune.service.schemas.targets import DetectIn
from crosstune.tuner.contracts import sha256_json

SHAPE = (1, 3, 16, 16)


@pytest.fixture
def service(service_process: Callable[..., Any]) -> Any:
    return service_process()


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    """Two convolutions, a pooling and a dense layer."""
    random = np.random.default_rng(6)
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (10, 16), "b3": (10,)}
    weights = [
        numpy_helper.from_array((0.1 * random.standard_normal(shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "two-convolutions",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(SHAPE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    path = tmp_path / "two-convolutions.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def build(client: Client, network: str, target: str) -> BuildOut:
    made = client.wait_build(client.create_build(BuildIn(network=network, target=target)).id)
    assert made.state == "succeeded", made.failure
    return made


def store(folder: Path, target: str, workload: str, trace: Any) -> None:
    """A schedule of the workload as if it had been the fastest on another target."""
    engine = create_engine(f"sqlite:///{folder / 'crosstune.db'}")
    timed = NewMeasurement(conditions={}, latencies_s=(1e-9,) * 3, quality="full", invalidity=None)
    with transaction(engine) as connection:
        records.store(
            connection,
            target_key=targets.get(connection, target).key,
            workload_key=workloads.get(connection, workload).key,
            project_key=projects.get(connection).key,
            candidates=[NewCandidate(sha256_json(trace), trace, source="search", measurements=(timed,))],
        )
    engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_that_was_never_tuned_is_built_from_what_is_predicted_and_known_elsewhere(
    service: Any, network_file: Path, tmp_path: Path
) -> None:
    with Client(service.start()) as client:
        here = client.detect_target().id
        there = client.detect_target(DetectIn(name="one-core", cores=1)).id
        network = client.wait_network(client.upload_network(network_file).id)

        # Nobody knows anything: what the model holds for the fastest, which may be the default schedule.
        first = build(client, network.id, there)
        assert {pin.label for pin in first.schedules} <= {"predicted"}
        workloads_of_first = [one.workload for one in (*first.schedules, *first.defaults)]
        assert len(workloads_of_first) == len(set(workloads_of_first)) == network.task_count
        assert all(one.reason for one in first.defaults)
        assert not client.collect(client.list_records, 10)

        # What was measured elsewhere comes along; a trace that fits no workload does not stop the others.
        budget = Budget(trials=4 * len(workloads_of_first))
        job = client.wait(client.create_job(JobIn(network=network.id, target=there, budget=budget)).id)
        bad = job.tasks[-1].workload
        store(service.data_dir, there, bad, [[["GetSBlock", [], ["no such block", "main"], ["b0"]]], []])
        made = build(client, network.id, here)
        assert {pin.label for pin in made.schedules} == {"transferred"}
        assert {pin.workload for pin in made.schedules} == set(workloads_of_first) - {bad}
        (left_out,) = made.defaults
        assert (left_out.workload, left_out.label) == (bad, "default") and "replay" in left_out.reason
        entries = {each["workload_sha256"]: each for each in made.manifest["schedules"]}
        assert {each["label"] for key, each in entries.items() if key != bad} == {"transferred"}
        assert (entries[bad]["label"], entries[bad]["reason"]) == ("default", left_out.reason)
        loaded = load(client.download_artifact(made.id, tmp_path / "artifact"))
    given = np.random.default_rng().standard_normal(SHAPE).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(network_file)).run(None, {"input": given})[0]
    np.testing.assert_allclose(loaded(given)["logits"], wanted, rtol=1e-4, atol=1e-4)
