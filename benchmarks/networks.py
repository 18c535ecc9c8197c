"""The benchmarks' networks: the light ones that the onnx package carries, and a ResNet-18 with real batch norm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import CACHE

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
SEED = 20


def light_source(name: str) -> Path:
    """The file as the onnx package ships it: every large weight is a ConstantOfShape, so all logits are equal."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return folder / f"light_{name}.onnx"


def seeded_light(name: str) -> Path:
    """The light network with seeded, variance-preserving random weights, as a file that onnxruntime runs too."""
    from crosstune.tuner.frontends.onnx import load_model, seed_weights

    path = CACHE / "networks" / f"light_{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        model = seed_weights(load_model(light_source(name).read_bytes()), SEED)
        scratch = path.with_suffix(".part")
        scratch.write_bytes(model.SerializeToString())
        scratch.replace(path)
    return path


def exported() -> list[Path]:
    """The exporters' outputs made by `make networks`; empty where that was not run."""
    names = {f"light_{name}" for name in LIGHT} | {"resnet18_built"}
    return [path for path in sorted((CACHE / "networks").glob("*.onnx")) if path.stem not in names]


def resnet18() -> Path:
    """ResNet-18 (He et al., CVPR 2016), batch 1, 224 x 224, with batch norm far from the identity."""
    path = CACHE / "networks" / "resnet18_built.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ResNet18().model().SerializeToString())
    return path


class ResNet18:
    def __init__(self) -> None:
        self.random = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        x = self._conv("input", 3, 64, 7, 2)
        x = self._node("Relu", [x])
        x = self._node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 64
        for stage, width in enumerate((64, 128, 256, 512)):
            for block in range(2):
                x = self._block(x, channels, width, 2 if stage > 0 and block == 0 else 1)
                channels = width
        x = self._node("GlobalAveragePool", [x])
        x = self._node("Flatten", [x])
        weight = self._weight((1000, 512), 512)
        self._node("Gemm", [x, weight, self._vector(1000, 0.1)], output="logits", transB=1)
        graph = helper.make_graph(
            self.nodes,
            "resnet18",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model

    def _block(self, x: str, channels: int, width: int, stride: int) -> str:
        shortcut = x if stride == 1 and channels == width else self._conv(x, channels, width, 1, stride)
        y = self._node("Relu", [self._conv(x, channels, width, 3, stride)])
        y = self._conv(y, width, width, 3, 1)
        return self._node("Relu", [self._node("Add", [y, shortcut])])

    def _conv(self, x: str, channels: int, width: int, kernel: int, stride: int) -> str:
        weight = self._weight((width, channels, kernel, kernel), channels * kernel * kernel)
        pad = kernel // 2
        y = self._node(
            "Conv", [x, weight], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, dilations=[1, 1]
        )
        scale, bias, mean = self._vector(width, 0.2, 1.0), self._vector(width, 0.2), self._vector(width, 0.2)
        variance = self._vector(width, 0.1, 1.0)
        return self._node("BatchNormalization", [y, scale, bias, mean, variance])

    def _node(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _weight(self, shape: tuple[int, ...], fan_in: int) -> str:
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32((2.0 / fan_in) ** 0.5)
        return self._constant(values)

    def _vector(self, size: int, spread: float, center: float = 0.0) -> str:
        return self._constant((center + spread * self.random.uniform(-1, 1, size)).astype(np.float32))

    def _constant(self, values: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name


def tiny(path: Path) -> Path:
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
    path.write_bytes(model.SerializeToString())
    return path
