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
from crosstune.service.schemas.targets import DetectIn
from crosstune.tuner.contracts import sha256_json

SHAPE = (1, 3, 56, 56)


@pytest.fixture
def service(service_process: Callable[..., Any]) -> Any:
    return service_process()


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    """Two convolutions with enough work that other schedules than the default one promise something."""
    random = np.random.default_rng(6)
    shapes = {"w1": (64, 3, 3, 3), "w2": (64, 64, 3, 3), "w3": (10, 64), "b3": (10,)}
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
    service: Any, network_file: Path, tmp_path: Path
) -> None:
    with Client(service.start()) as client:
        here = client.detect_target().id
        there = client.detect_target(DetectIn(name="one-core", cores=1)).id
        network = client.wait_network(client.upload_network(network_file).id).id
        first = build(client, network, there)
        predicted = {pin.workload: pin for pin in first.schedules}
        assert predicted and {pin.label for pin in predicted.values()} == {"predicted"}
        assert len(predicted) + len(first.defaults) == first.manifest["workloads_total"] + len(first.defaults)
        assert all("default" in one.reason for one in first.defaults)  # what the model holds for the fastest
        assert not client.collect(client.list_records, 10)

        # What was measured elsewhere comes along; a trace that fits no workload does not stop the others.
        good = next(iter(predicted))
        bad = next(each["workload_sha256"] for each in first.manifest["schedules"] if each["workload_sha256"] != good)
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
    given = np.random.default_rng().standard_normal(SHAPE).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(network_file)).run(None, {"input": given})[0]
    np.testing.assert_allclose(loaded(given)["logits"], wanted, rtol=1e-4, atol=1e-4)


def stored_traces(folder: Path, build_id: str) -> dict[str, Any]:
    """Of predicted schedules, which no record holds."""
    from crosstune.db.repositories import builds

    engine = create_engine(f"sqlite:///{folder / 'crosstune.db'}")
    with transaction(engine) as connection:
        pins = builds.get(connection, build_id).schedules
    engine.dispose()
    return {pin["workload"]: pin["trace"] for pin in pins if "trace" in pin}
