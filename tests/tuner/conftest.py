"""One small network, compiled once for all tests that need a finished artifact."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosstune.tuner import deploy
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import BuildRequest, ImportedNetwork, PinnedSchedule, TargetSpec
from crosstune.tuner.tasks import import_network

SIZE = 20


def make_network(seed: int = 1, *, scale: float = 1.0) -> onnx.ModelProto:
    """Three convolutions, batch norm, a residual sum, a fully connected layer, softmax; random weights."""
    generator = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 1.0
        values = generator.standard_normal(shape) * scale * (2.0 / fan_in) ** 0.5
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [
        weight("w1", 16, 3, 3, 3),
        weight("b1", 16),
        weight("w2", 16, 16, 1, 1),
        weight("w3", 24, 16, 3, 3),
        weight("w4", 24, 10),
        weight("b4", 10),
        weight("gamma", 16),
        weight("beta", 16),
        weight("mean", 16),
        numpy_helper.from_array(generator.uniform(0.5, 1.5, 16).astype(np.float32), "variance"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("BatchNormalization", ["c2", "gamma", "beta", "mean", "variance"], ["n2"]),
        helper.make_node("Add", ["n2", "r1"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p3"]),
        helper.make_node("Flatten", ["p3"], ["f3"]),
        helper.make_node("Gemm", ["f3", "w4", "b4"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


TARGET = TargetSpec("llvm", "haswell", min(2, os.cpu_count() or 1), "test processor", triple="x86_64-linux-gnu")

MakeRequest = Callable[..., BuildRequest]


def build_request(folder: Path, model: onnx.ModelProto, schedules: Sequence[PinnedSchedule] = ()) -> BuildRequest:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return BuildRequest(
        target=TARGET,
        network_path=str(path),
        shapes={},
        schedules=tuple(schedules),
        output_folder=str(folder / "artifact"),
        seed=7,
    )


@pytest.fixture(scope="session")
def small_network() -> onnx.ModelProto:
    return make_network()


@pytest.fixture
def make_request(tmp_path: Path) -> MakeRequest:
    """`make_request(model, schedules)`: a build into a folder of this test."""
    return functools.partial(build_request, tmp_path / "build")


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """A preloaded template, shared: children of one test are gone before the next one starts."""
    with Template.start() as started:
        yield started


@pytest.fixture(scope="session")
def artifact(template: Template, small_network: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with default schedules, as a finished artifact's folder."""
    compiled = deploy.compile_network(template, build_request(tmp_path_factory.mktemp("deployed"), small_network))
    verification = deploy.verify(template, compiled)
    outcome = deploy.finish(compiled, verification, deploy.time_network(template, compiled, duration_s=0.3))
    assert outcome.refused is None
    return compiled.folder


@pytest.fixture(scope="session")
def imported_network(
    template: Template, small_network: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> ImportedNetwork:
    """The small network's tasks, as an import step finds them."""
    path = tmp_path_factory.mktemp("imported") / "small.onnx"
    path.write_bytes(small_network.SerializeToString())
    with template.spawn("import") as child:
        return import_network(child, path, {}, 120.0)
