"""The graph pipeline: layouts, numbers against onnxruntime, and the nine networks of the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crosstune.tuner.frontends.weights import strip_weights
from crosstune.tuner.tvm_adapter import axes
from crosstune.tuner.tvm_adapter.preload import preload

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", autouse=True)
def tvm() -> Iterator[None]:
    preload()
    yield


class Builder:
    """A network under construction with random weights."""

    def __init__(self, *shape: int, opset: int = 17) -> None:
        self.random = np.random.default_rng(0)
        self.shape, self.opset = shape, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def constant(self, *shape: int, low: float = -0.5, high: float = 0.5) -> str:
        return self.exactly(self.random.uniform(low, high, shape).astype(np.float32))

    def exactly(self, value: Any) -> str:
        self.initialisers.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.initialisers)}"))
        return self.initialisers[-1].name

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def conv(self, value: str, inputs: int, outputs: int, size: int = 3, group: int = 1, stride: int = 1) -> str:
        pads = [size // 2] * 4
        weight, bias = self.constant(outputs, inputs // group, size, size), self.constant(outputs)
        return self.node("Conv", value, weight, bias, group=group, pads=pads, strides=[stride, stride])

    def batch_norm(self, value: str, channels: int) -> str:
        parameters = [self.constant(channels) for _ in range(3)]
        return self.node("BatchNormalization", value, *parameters, self.constant(channels, low=0.3, high=2.0))

    def model(self, *outputs: str) -> onnx.ModelProto:
        names = outputs or (self.nodes[-1].output[0],)
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            self.initialisers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def checked(model: onnx.ModelProto) -> Any:
    """The prepared network, having compared what it computes, unscheduled, with onnxruntime."""
    import tvm

    from crosstune.tuner.tvm_adapter.graph import prepare

    prepared = prepare(model.SerializeToString(), {})
    value = np.random.default_rng(1).standard_normal(prepared.inputs[0].shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": value})
    target = tvm.target.Target({"kind": "llvm", "num-cores": 1})
    machine = tvm.relax.VirtualMachine(tvm.compile(prepared.bound(), target), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(value))
    found = [result] if hasattr(result, "numpy") else list(result)
    for expected, tensor in zip(wanted, found, strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-4, atol=2e-4)
    return prepared


def called(prepared: Any) -> str:
    return " ".join(prepared.calls)


def test_a_residual_network_with_concat_and_pools_computes_what_onnxruntime_does_all_in_nhwc() -> None:
    build = Builder(1, 3, 16, 16)
    stem = build.node("Relu", build.batch_norm(build.conv("x", 3, 16, stride=2), 16))
    stem = build.node("MaxPool", stem, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    branch = build.batch_norm(
        build.conv(build.node("Relu", build.batch_norm(build.conv(stem, 16, 16), 16)), 16, 16), 16
    )
    total = build.node("Relu", build.node("Add", branch, stem))
    joined = build.node("Concat", total, build.conv(total, 16, 8, size=1), axis=1)
    pooled = build.node("AveragePool", joined, kernel_shape=[2, 2], strides=[2, 2])
    flat = build.node("Flatten", build.node("GlobalAveragePool", pooled))
    build.node("Softmax", build.node("Gemm", flat, build.constant(10, 24), build.constant(10), transB=1))
    prepared = checked(build.model())
    assert prepared.layout == "NHWC"
    assert "4 of 4 convolutions in NHWC; 1 transpose" in prepared.layout_note  # of the input
    assert not any(word in called(prepared) for word in ("subtract", "divide", "sqrt"))


def test_depthwise_grouped_and_squeeze_excite_stay_in_nhwc() -> None:
    build = Builder(2, 8, 12, 12)
    zero, six = build.exactly(np.float32(0)), build.exactly(np.float32(6))
    value = build.node("Clip", build.batch_norm(build.conv("x", 8, 32, size=1), 32), zero, six)
    value = build.node("HardSwish", build.batch_norm(build.conv(value, 32, 32, group=32, stride=2), 32))
    value = build.node("LeakyRelu", build.conv(value, 32, 32, group=4))
    gate = build.node("GlobalAveragePool", value)
    gate = build.node("Sigmoid", build.conv(build.node("Relu", build.conv(gate, 32, 8, 1)), 8, 32, 1))
    build.node("ReduceMean", build.node("Mul", value, gate), axes=[2, 3], keepdims=0)
    prepared = checked(build.model())
    assert "5 of 5 convolutions in NHWC; 1 transpose" in prepared.layout_note


def test_a_channel_shuffle_costs_one_transpose_and_no_layout() -> None:
    build = Builder(1, 8, 6, 6)
    value = build.conv("x", 8, 8, size=1, group=2)
    value = build.node("Reshape", value, build.exactly(np.asarray([1, 2, 4, 6, 6], np.int64)))
    value = build.node("Transpose", value, perm=[0, 2, 1, 3, 4])
    value = build.node("Reshape", value, build.exactly(np.asarray([1, 8, 6, 6], np.int64)))
    build.node("Relu", build.conv(value, 8, 8, group=8))
    prepared = checked(build.model())
    assert prepared.layout == "NHWC"
    assert prepared.calls == {"transpose": 1} | prepared.calls
    assert "3 transposes" in prepared.layout_note  # input, shuffle, output


def test_a_transposed_convolution_falls_back_alone_and_the_note_says_so() -> None:
    build = Builder(1, 8, 6, 6)
    value = build.node("Relu", build.conv("x", 8, 8))
    value = build.node("ConvTranspose", value, build.constant(8, 4, 2, 2), strides=[2, 2])
    build.node("Relu", build.conv(value, 4, 8))
    prepared = checked(build.model())
    assert prepared.layout == "mixed"
    assert "2 of 3 convolutions in NHWC" in prepared.layout_note
    assert "nn.conv2d_transpose (1x)" in prepared.layout_note


def test_slices_splits_pads_resizes_and_normalisations_follow_the_layout() -> None:
    build = Builder(1, 4, 8, 8)
    value = build.conv("x", 4, 8)
    value = build.node("Pad", value, build.exactly(np.asarray([0, 0, 1, 2, 0, 0, 0, 1], np.int64)))
    begin, end, axis = (build.exactly(np.asarray([number], np.int64)) for number in (1, 9, 2))
    value = build.node("Slice", value, begin, end, axis)
    build.node("Split", value, build.exactly(np.asarray([4, 4], np.int64)), outputs=2, axis=1)
    first, second = build.nodes[-1].output
    value = build.node("Max", first, build.node("LRN", second, size=3))
    scales = build.exactly(np.asarray([1, 1, 2, 2], np.float32))
    value = build.node("Resize", value, "", scales, mode="nearest")
    value = build.node("PRelu", build.conv(value, 4, 4), build.constant(4, 1, 1))
    build.node("Softmax", value, axis=1)
    prepared = checked(build.model())
    assert "2 of 2 convolutions in NHWC; 2 transposes of activations left" in prepared.layout_note
    assert "back to" not in prepared.layout_note


def test_one_dimensional_convolutions_run_channels_last() -> None:
    build = Builder(1, 4, 20)
    value = build.node("Conv", "x", build.constant(8, 4, 3), build.constant(8), strides=[2])
    build.node("MaxPool", build.node("Relu", value), kernel_shape=[2], strides=[2])
    assert "1 of 1 convolutions in NWC" in checked(build.model()).layout_note


def transformer_block(build: Builder, width: int, heads: int, length: int) -> None:
    def projected(value: str, outputs: int) -> str:
        return build.node("Add", build.node("MatMul", value, build.constant(width, outputs)), build.constant(outputs))

    def split_heads(value: str, perm: list[int]) -> str:
        target = build.exactly(np.asarray([1, length, heads, width // heads], np.int64))
        return build.node("Transpose", build.node("Reshape", value, target), perm=perm)

    normal = build.node("LayerNormalization", "x", build.constant(width), build.constant(width))
    query = split_heads(projected(normal, width), [0, 2, 1, 3])
    key = split_heads(projected(normal, width), [0, 2, 3, 1])
    value = split_heads(projected(normal, width), [0, 2, 1, 3])
    scores = build.node("Mul", build.node("MatMul", query, key), build.exactly(np.float32((width // heads) ** -0.5)))
    mixed = build.node("Transpose", build.node("MatMul", build.node("Softmax", scores), value), perm=[0, 2, 1, 3])
    mixed = build.node("Reshape", mixed, build.exactly(np.asarray([1, length, width], np.int64)))
    residual = build.node("Add", "x", projected(mixed, width))
    inner = projected(residual, width)
    error = build.node("Erf", build.node("Div", inner, build.exactly(np.float32(2**0.5))))
    inner = build.node("Mul", inner, build.node("Add", error, build.exactly(np.float32(1))))
    build.node("Add", residual, build.node("Mul", inner, build.exactly(np.float32(0.5))))


def test_a_transformer_block_computes_what_onnxruntime_does() -> None:
    build = Builder(1, 12, 32)
    transformer_block(build, width=32, heads=4, length=12)
    prepared = checked(build.model())
    assert "no convolutions" in prepared.layout_note
    assert prepared.calls["softmax"] == 1


def test_a_layer_norm_in_single_operators_and_powers_computes_what_onnxruntime_does() -> None:
    build = Builder(1, 6, 16)
    mean = build.node("ReduceMean", "x", axes=[-1])
    centred = build.node("Sub", "x", mean)
    variance = build.node("ReduceMean", build.node("Pow", centred, build.exactly(np.float32(2))), axes=[-1])
    deviation = build.node("Sqrt", build.node("Add", variance, build.exactly(np.float32(1e-5))))
    cubed = build.node("Pow", build.node("Div", centred, deviation), build.exactly(np.float32(3)))
    build.node("Mul", cubed, build.constant(16))
    assert "power" not in called(checked(build.model()))


def test_negative_indices_and_indices_that_come_as_input_are_gathered() -> None:
    build = Builder(4, 5)
    row = build.node("Gather", "x", build.exactly(np.asarray([-1, 0], np.int64)), axis=0)
    where = build.node("Cast", build.node("Clip", build.node("Abs", "x"), "", build.exactly(np.float32(3))), to=7)
    picked = build.node("Gather", build.constant(6, 3), where, axis=0)
    checked(build.model(row, picked))


def test_an_input_may_be_an_output_and_several_outputs_keep_their_order() -> None:
    build = Builder(1, 4, 6, 6)
    first = build.conv("x", 4, 8)
    second = build.node("Relu", first)
    prepared = checked(build.model(second, first))
    assert [spec.shape for spec in prepared.outputs] == [(1, 8, 6, 6)] * 2


def resnet18() -> onnx.ModelProto:
    build = Builder(1, 3, 64, 64)
    value = build.node("Relu", build.batch_norm(build.conv("x", 3, 64, size=7, stride=2), 64))
    value = build.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if outputs > width and block == 0 else 1
            inner = build.node("Relu", build.batch_norm(build.conv(value, width, outputs, stride=stride), outputs))
            inner = build.batch_norm(build.conv(inner, outputs, outputs), outputs)
            if width != outputs:
                value = build.batch_norm(build.conv(value, width, outputs, size=1, stride=stride), outputs)
            value = build.node("Relu", build.node("Add", inner, value))
            width = outputs
    flat = build.node("Flatten", build.node("GlobalAveragePool", value))
    build.node("Gemm", flat, build.constant(1000, 512), build.constant(1000), transB=1)
    return strip_weights(build.model())


def test_no_convolution_of_resnet18_ends_in_a_batch_norm() -> None:
    from crosstune.tuner.operations.import_network import described
    from crosstune.tuner.tvm_adapter.graph import prepare

    prepared = prepare(resnet18().SerializeToString(), {})
    answer = described(prepared)
    assert len(answer["tasks"]) == 19
    convolutions = [task["workload"]["name"] for task in answer["tasks"] if "conv2d" in task["workload"]["name"]]
    assert set(convolutions) == {"conv2d_add_relu", "conv2d_add_add_relu", "conv2d_add"}
    assert answer["synthetic_weights"]
    assert answer["layout"] == "NHWC"


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: str(path.stem))
def test_each_light_network_imports_in_nhwc_and_gives_tasks(path: Path) -> None:
    from crosstune.tuner.operations.import_network import run
    from crosstune.tuner.tasks import imported_from_answer

    imported = imported_from_answer(run({"onnx_path": str(path), "shapes": {}, "seed": 0}))
    assert imported.layout == "NHWC"
    assert imported.synthetic_weights
    assert len(imported.tasks) >= 19
    assert sum(task.weight * task.workload.flops for task in imported.tasks) > 1e8
    for task in imported.tasks:
        assert task.workload.output_count == 1
        assert not any(word in task.workload.name for word in ("conv2d_subtract", "conv2d_divide", "sqrt"))


def test_every_operator_that_is_let_through_has_a_converter() -> None:
    from tvm.relax.frontend.onnx import onnx_frontend

    from crosstune.tuner.frontends.operators import SUPPORTED

    assert set(onnx_frontend._get_convert_map()) >= SUPPORTED


def test_there_are_nine_light_networks() -> None:
    assert len(LIGHT) == 9


SMALL_SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_reshape_of_any_stored_order_keeps_the_values(data: st.DataObject) -> None:
    before = tuple(data.draw(SMALL_SHAPES))
    size = int(np.prod(before))
    order = tuple(data.draw(st.permutations(range(len(before)))))
    after = _factors(data, size)
    original = np.arange(size).reshape(before)
    stored = original.transpose(order)
    groups = axes.reshape_groups(before, after)
    fitting = axes.order_for_reshape(before, order, groups)
    moved = stored.transpose(axes.moves(order, fitting))
    result = axes.order_after_reshape(before, fitting, groups)
    reshaped = moved.reshape(axes.stored_shape(after, result))
    np.testing.assert_array_equal(reshaped, original.reshape(after).transpose(result))


def _factors(data: st.DataObject, size: int) -> tuple[int, ...]:
    factors = []
    while size > 1:
        factor = data.draw(st.sampled_from([n for n in range(2, size + 1) if size % n == 0]))
        factors.append(factor)
        size //= factor
    ones = data.draw(st.lists(st.integers(0, len(factors)), max_size=2))
    for position in sorted(ones, reverse=True):
        factors.insert(position, 1)
    return tuple(factors) or (1,)


@given(order=st.permutations(range(4)), turn=st.permutations(range(4)))
def test_a_transpose_only_changes_what_is_known_of_the_order(order: list[int], turn: list[int]) -> None:
    original = np.arange(24).reshape(1, 2, 3, 4)
    stored = original.transpose(order)
    seen = axes.transposed(tuple(order), tuple(turn))
    np.testing.assert_array_equal(stored, original.transpose(turn).transpose(seen))
