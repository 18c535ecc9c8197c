"""Folding of batch norms and seeding of missing weights, checked against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends.graph_key import graph_key
from crosstune.tuner.frontends.network import SMALL_ELEMENTS
from crosstune.tuner.frontends.onnx import read_network, seed_weights
from crosstune.tuner.frontends.weights import strip_weights

Array = np.ndarray[Any, Any]


class Builder:
    """A network under construction with random weights."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def constant(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        name = f"w{len(self.initialisers)}"
        value = self.random.uniform(low, high, shape).astype(np.float32)
        self.initialisers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def batch_norm(self, value: str, channels: int) -> str:
        parameters = [self.constant(channels) for _ in range(3)]
        return self.node("BatchNormalization", value, *parameters, self.constant(channels, low=0.3, high=2.0))

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.initialisers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, value: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": value})[0]
    return found


def operators_after(builder: Builder, output: str) -> list[str]:
    """The folded network's operators, having checked that it computes what the original does."""
    model = builder.model(output)
    network = read_network(model.SerializeToString(), {}, 0)
    value = builder.random.standard_normal(builder.shape).astype(np.float32)
    np.testing.assert_allclose(run(network.to_model(with_values=True), value), run(model, value), rtol=1e-4, atol=1e-5)
    return [node.op_type for node in network.nodes]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    addition=st.booleans(),
    transposed=st.booleans(),
)
def test_batch_norm_behind_any_convolution_is_folded_into_it(
    seed: int, groups: int, bias: bool, addition: bool, transposed: bool
) -> None:
    builder = Builder(seed, (2, 8, 6, 6))
    shape = (8, 12 // groups, 3, 3) if transposed else (12, 8 // groups, 3, 3)
    inputs = ["x", builder.constant(*shape), *([builder.constant(12)] if bias else [])]
    value = builder.node("ConvTranspose" if transposed else "Conv", *inputs, group=groups)
    if addition:
        value = builder.node("Add", value, builder.constant(12, 1, 1))
    value = builder.batch_norm(value, 12)
    assert operators_after(builder, value) == ["ConvTranspose" if transposed else "Conv"]


def test_depthwise_convolutions_and_chains_of_norms_fold_completely() -> None:
    builder = Builder(3, (1, 16, 7, 7))
    value = builder.batch_norm("x", 16)
    value = builder.node("Conv", value, builder.constant(16, 1, 3, 3), group=16, pads=[1, 1, 1, 1])
    value = builder.batch_norm(builder.batch_norm(value, 16), 16)
    value = builder.node("Relu", value)
    assert operators_after(builder, value) == ["Mul", "Add", "Conv", "Relu"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_batch_norm_behind_a_linear_layer_is_folded(transposed: int) -> None:
    builder = Builder(4, (3, 8))
    weight = builder.constant(*((12, 8) if transposed else (8, 12)))
    value = builder.node("Gemm", "x", weight, builder.constant(12), transB=transposed, alpha=0.5, beta=2.0)
    assert operators_after(builder, builder.batch_norm(value, 12)) == ["Gemm"]


def test_batch_norm_behind_a_matrix_product_and_its_bias_leaves_one_addition() -> None:
    builder = Builder(5, (3, 8))
    value = builder.node("Add", builder.node("MatMul", "x", builder.constant(8, 12)), builder.constant(12))
    assert operators_after(builder, builder.batch_norm(value, 12)) == ["MatMul", "Add"]


def test_a_scale_and_shift_by_single_operators_is_folded_like_a_batch_norm() -> None:
    builder = Builder(6, (1, 8, 5, 5))
    value = builder.node("Conv", "x", builder.constant(12, 8, 1, 1))
    value = builder.node("Sub", value, builder.constant(12, 1, 1))
    value = builder.node("Div", value, builder.constant(12, 1, 1, low=0.5, high=2.0))
    value = builder.node("Mul", builder.constant(1, 12, 1, 1), value)
    assert operators_after(builder, value) == ["Conv"]


def test_a_layer_whose_output_is_read_twice_keeps_its_weights() -> None:
    builder = Builder(7, (1, 8, 5, 5))
    value = builder.node("Conv", "x", builder.constant(8, 8, 1, 1))
    value = builder.node("Add", value, builder.batch_norm(value, 8))
    assert operators_after(builder, value) == ["Conv", "Mul", "Add", "Add"]


def test_weights_shared_by_two_layers_are_folded_apart() -> None:
    builder = Builder(8, (1, 8, 5, 5))
    shared = builder.constant(8, 8, 1, 1)
    first = builder.batch_norm(builder.node("Conv", "x", shared), 8)
    second = builder.batch_norm(builder.node("Conv", first, shared), 8)
    assert operators_after(builder, second) == ["Conv", "Conv"]


def residual_network() -> Builder:
    builder = Builder(9, (1, 16, 9, 9))
    value = "x"
    for _ in range(3):
        inner = builder.node("Conv", value, builder.constant(16, 16, 3, 3), pads=[1, 1, 1, 1])
        value = builder.node("Relu", builder.node("Add", builder.batch_norm(inner, 16), value))
    value = builder.node("Flatten", builder.node("GlobalAveragePool", value))
    builder.node("Gemm", value, builder.constant(2000, 16), builder.constant(2000), transB=1)
    return builder


def test_a_stripped_network_has_the_same_graph_and_gets_the_values_that_seeding_writes() -> None:
    builder = residual_network()
    full = builder.model(builder.nodes[-1].output[0])
    stripped = strip_weights(full)
    assert all(t.raw_data for t in stripped.graph.initializer if np.prod(t.dims) <= SMALL_ELEMENTS)
    assert not any(t.raw_data for t in stripped.graph.initializer if np.prod(t.dims) > SMALL_ELEMENTS)
    with_weights = read_network(full.SerializeToString(), {}, 0)
    without = read_network(stripped.SerializeToString(), {}, 5)
    assert (with_weights.synthetic_weights, without.synthetic_weights) == (False, True)
    assert graph_key(with_weights) == graph_key(without)
    value = builder.random.standard_normal(builder.shape).astype(np.float32)
    seeded = run(seed_weights(stripped, 5), value)
    np.testing.assert_allclose(run(without.to_model(with_values=True), value), seeded, rtol=1e-4, atol=1e-4)
    assert 1e-3 < float(seeded.std()) < 1e3


def test_seeding_depends_on_the_seed_and_the_name_and_nothing_else() -> None:
    builder = residual_network()
    stripped = strip_weights(builder.model(builder.nodes[-1].output[0]))
    one, again, other = (seed_weights(stripped, seed).SerializeToString() for seed in (1, 1, 2))
    assert one == again != other


def test_weights_spelled_as_constant_of_shape_are_seeded_and_masks_are_not() -> None:
    builder = Builder(10, (1, 8, 6, 6))
    sizes = {"ws": [64, 8, 3, 3], "bs": [64], "ms": [64, 1, 1]}
    for name, extents in sizes.items():
        builder.initialisers.append(numpy_helper.from_array(np.asarray(extents, np.int64), name))
    half = numpy_helper.from_array(np.asarray([0.5], np.float32))
    made = [builder.node("ConstantOfShape", name, value=half) for name in sizes]
    value = builder.node("Conv", "x", made[0], made[1])
    model = builder.model(value)
    network = read_network(model.SerializeToString(), {}, 0)
    assert network.synthetic_weights
    value_in = builder.random.standard_normal(builder.shape).astype(np.float32)
    assert float(run(model, value_in).std(axis=1).max()) < 1e-4  # as written, all channels are equal
    assert float(run(seed_weights(model, 0), value_in).std(axis=1).min()) > 1e-2


def test_a_mask_made_by_constant_of_shape_keeps_its_values() -> None:
    builder = Builder(11, (1, 64, 64))
    builder.initialisers.append(numpy_helper.from_array(np.asarray([64, 64], np.int64), "s"))
    ones = numpy_helper.from_array(np.asarray([1.0], np.float32))
    mask = builder.node("ConstantOfShape", "s", value=ones)
    value = builder.node("Add", "x", builder.node("Trilu", mask, upper=0))
    network = read_network(builder.model(value).SerializeToString(), {}, 0)
    assert not network.synthetic_weights
    assert operators_after(builder, value) == ["Add"]


def test_a_small_tensor_without_values_is_refused_by_name() -> None:
    builder = Builder(12, (1, 8))
    value = builder.node("Add", "x", builder.constant(8))
    model = builder.model(value)
    model.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(NetworkRefused, match="'w0' has no values") as caught:
        read_network(model.SerializeToString(), {}, 0)
    assert caught.value.code == "missing_data"
