"""Real services as processes of their own, on a data folder that outlives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


class ServiceProcess:
    """`crosstune serve` on one data folder: started, killed, started again."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir, self._environment = data_dir, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.starts = 0

    def start(self) -> str:
        self.starts += 1
        log = (self.data_dir.parent / f"{self.data_dir.name}-{self.starts}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crosstune.service.cli", "serve"]  # noqa: RUF005
            + ["--port", "0", "--json", "--data-dir", str(self.data_dir)],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        return self.url

    def kill(self) -> None:
        """kill -9, as the kernel or a person would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)


@pytest.fixture
def service_process(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    made: list[ServiceProcess] = []

    def make(name: str = "data", **environment: str) -> ServiceProcess:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(ServiceProcess(folder, **environment))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small convolutions with batch norm, a pooling and a Gemm: a few tasks of some microseconds each."""
    random = np.random.default_rng(5)

    def constant(name: str, *shape: int, around: float = 0.0) -> onnx.TensorProto:
        return numpy_helper.from_array((around + 0.3 * random.standard_normal(shape)).astype(np.float32), name)

    weights = [constant("w1", 16, 3, 3, 3), constant("w2", 16, 16, 3, 3), constant("w3", 10, 16), constant("b3", 10)]
    for index in (1, 2):
        weights += [constant(f"scale{index}", 16, around=1.0), constant(f"bias{index}", 16)]
        weights += [constant(f"mean{index}", 16)]
        variance = (0.5 + random.random(16)).astype(np.float32)
        weights.append(numpy_helper.from_array(variance, f"variance{index}"))
    nodes = []
    source = "input"
    for index in (1, 2):
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        statistics = [f"{part}{index}" for part in ("scale", "bias", "mean", "variance")]
        nodes.append(helper.make_node("BatchNormalization", [f"c{index}", *statistics], [f"n{index}"]))
        nodes.append(helper.make_node("Relu", [f"n{index}"], [f"r{index}"]))
        source = f"r{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("networks") / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return path
