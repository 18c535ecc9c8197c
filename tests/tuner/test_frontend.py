"""The ONNX front end's answers to good and bad files: numpy and onnx only, no compiler."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends.graph_key import graph_key
from crosstune.tuner.frontends.onnx import read_network
from crosstune.tuner.frontends.safety import Limits, load_model

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), name)


def model(
    nodes: list[onnx.NodeProto] | None = None,
    shape: tuple[int | str, ...] = (1, 3, 8, 8),
    initialisers: list[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    nodes = nodes if nodes is not None else [helper.make_node("Relu", ["x"], ["y"], name="only")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initialisers or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refusal(data: bytes, **shapes: list[int]) -> NetworkRefused:
    with pytest.raises(NetworkRefused) as caught:
        read_network(data, shapes, 0)
    return caught.value


def test_a_file_that_is_not_onnx_is_said_to_be_none() -> None:
    for data in (b"", b"not a network at all", b"\x89PNG\r\n\x1a\n" + bytes(100), b"<html></html>"):
        assert refusal(data).code == "not_onnx"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.0, 0.999))
def test_every_truncated_file_is_refused_with_a_clear_code(share: float) -> None:
    data = (LIGHT / "light_squeezenet.onnx").read_bytes()
    cut = data[: int(len(data) * share)]
    assert refusal(cut).code in {"truncated", "not_onnx"}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray((LIGHT / "light_zfnet512.onnx").read_bytes())
    for _ in range(chance.choice([1, 2, 5])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        read_network(bytes(data), {}, 0)
    except NetworkRefused as refused:
        assert refused.code
        assert refused.detail


@pytest.mark.parametrize("name", [b"Custom", b"only", b"weight", b"value"])
def test_a_name_that_is_no_text_is_refused_wherever_it_is(name: bytes) -> None:
    custom = helper.make_node("Custom", ["x", "weight"], ["value"], name="only")
    network = model([custom, helper.make_node("Relu", ["value"], ["y"])], initialisers=[tensor("weight", 4)])
    data = network.SerializeToString()
    assert name in data
    refused = refusal(data.replace(name, b"\xff" + name[1:]))
    assert refused.code == "not_onnx"
    assert "not UTF-8" in refused.detail


def external(name: str = "w") -> onnx.TensorProto:
    hidden = tensor(name, 4)
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    return hidden


def in_initialiser(network: onnx.ModelProto) -> None:
    network.graph.initializer.append(external())


def in_sparse_values(network: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=external(), indices=numpy_helper.from_array(np.zeros(4, np.int64)), dims=[9])
    network.graph.sparse_initializer.append(sparse)


def in_sparse_indices(network: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=tensor("w", 4), indices=external(), dims=[9])
    network.graph.sparse_initializer.append(sparse)


def in_attribute(network: onnx.ModelProto) -> None:
    network.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=external()))


def in_attribute_list(network: onnx.ModelProto) -> None:
    network.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS, tensors=[external()])


def in_sparse_attribute(network: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=external(), indices=numpy_helper.from_array(np.zeros(4, np.int64)), dims=[9])
    attribute = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    network.graph.node.append(onnx.NodeProto(op_type="Constant", output=["w"], attribute=[attribute]))


def in_sub_graph_of_a_sub_graph(network: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external()])
    middle = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)], "m", [], []
    )
    network.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=middle, else_branch=middle))


def in_function(network: onnx.ModelProto) -> None:
    body = [helper.make_node("Constant", [], ["w"], value=external())]
    network.functions.append(helper.make_function("local", "F", [], ["w"], body, [helper.make_opsetid("", 17)]))


def in_function_default(network: onnx.ModelProto) -> None:
    function = helper.make_function("local", "F", [], [], [], [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="t", type=onnx.AttributeProto.TENSOR, t=external())
    network.functions.append(function)


def in_training_graph(network: onnx.ModelProto) -> None:
    network.training_info.add(algorithm=helper.make_graph([], "a", [], [], [external()]))


HIDING_PLACES = [
    in_initialiser,
    in_sparse_values,
    in_sparse_indices,
    in_attribute,
    in_attribute_list,
    in_sparse_attribute,
    in_sub_graph_of_a_sub_graph,
    in_function,
    in_function_default,
    in_training_graph,
]


@pytest.mark.parametrize("hide", HIDING_PLACES, ids=lambda hide: str(hide.__name__))
def test_external_data_is_refused_wherever_it_hides(hide: Callable[[onnx.ModelProto], None]) -> None:
    network = model()
    hide(network)
    refused = refusal(network.SerializeToString())
    assert refused.code == "external_data"
    assert "'w'" in refused.detail


def test_external_data_is_refused_also_when_only_its_entries_are_there() -> None:
    network = model(initialisers=[tensor("w", 4)])
    network.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    assert refusal(network.SerializeToString()).code == "external_data"


def test_all_unsupported_operators_are_named_with_a_node_each() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"], name="find"),
        helper.make_node("Unique", ["x"], ["u"], name="distinct"),
        helper.make_node("Cast", ["i"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["a"], ["b"]),
        helper.make_node("ReduceSum", ["u"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    refused = refusal(model(nodes).SerializeToString())
    assert refused.code == "unsupported_operator"
    assert refused.facts["operators"] == ["NonZero", "Unique"]
    assert "'find'" in refused.detail
    assert "'distinct'" in refused.detail


def test_a_domain_of_its_own_is_refused_by_name() -> None:
    network = model([helper.make_node("Fancy", ["x"], ["y"], domain="com.example")])
    network.opset_import.add(domain="com.example", version=1)
    refused = refusal(network.SerializeToString())
    assert refused.code == "unsupported_domain"
    assert "com.example" in refused.detail


def test_an_opset_out_of_range_is_refused_with_the_range() -> None:
    for opset in (1, 99):
        refused = refusal(model(opset=opset).SerializeToString())
        assert refused.code == "unsupported_opset"
        assert "7 to" in refused.detail


def test_an_open_dimension_is_named_and_the_answer_shows_how_to_give_it() -> None:
    data = model(shape=("batch", 3, 8, 8)).SerializeToString()
    refused = refusal(data)
    assert refused.code == "dynamic_shape"
    assert "'x'" in refused.detail
    assert "batch" in refused.detail
    assert "--shape x:1,3,8,8" in refused.detail
    assert read_network(data, {"x": [4, 3, 8, 8]}, 0).outputs[0].shape == (4, 3, 8, 8)


def test_an_input_without_any_shape_asks_for_one() -> None:
    network = model()
    network.graph.input[0].type.tensor_type.ClearField("shape")
    assert refusal(network.SerializeToString()).code == "dynamic_shape"


def test_one_size_holds_for_every_input_that_names_the_dimension() -> None:
    network = model([helper.make_node("Add", ["x", "z"], ["y"])], shape=("n", 4))
    network.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ("n", 4)))
    read = read_network(network.SerializeToString(), {"x": [7, 4]}, 0)
    assert [spec.shape for spec in read.inputs] == [(7, 4), (7, 4)]


def test_a_shape_for_an_input_that_is_not_there_is_refused_with_the_names() -> None:
    refused = refusal(model().SerializeToString(), image=[1, 3, 8, 8])
    assert refused.code == "unknown_input"
    assert refused.facts["inputs"] == ["x"]


@pytest.mark.parametrize("given", [[1, 3, 8], [1, 3, 9, 8], [1, 3, 0, 8], [1, 3, -1, 8]])
def test_a_shape_that_does_not_fit_is_refused(given: list[int]) -> None:
    assert refusal(model().SerializeToString(), x=given).code == "shape_mismatch"


def test_stale_shapes_in_the_file_are_replaced_by_inferred_ones() -> None:
    network = model([helper.make_node("Relu", ["x"], ["m"]), helper.make_node("Relu", ["m"], ["y"])], ("n", 4))
    network.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ("stale", 4)))
    read = read_network(network.SerializeToString(), {"x": [5, 4]}, 0)
    assert read.shape("m") == (5, 4)


def test_a_size_that_depends_on_values_is_refused_with_its_operator() -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["y"], name="made")]
    network = model(nodes)
    network.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, (2,)))
    refused = refusal(network.SerializeToString())
    assert refused.code == "dynamic_shape"
    assert "ConstantOfShape 'made'" in refused.detail


def test_what_is_too_large_is_refused_before_anything_is_computed() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])] * 1, initialisers=[tensor("w", 4, 4)]).SerializeToString()
    for limits in (
        Limits(model_bytes=10),
        Limits(nodes=0),
        Limits(weight_bytes=10),
        Limits(dimension=3),
        Limits(rank=1),
    ):
        with pytest.raises(NetworkRefused, match="at most") as caught:
            load_model(data, limits)
        assert caught.value.code == "too_large"


def test_a_tiny_file_that_asks_for_a_huge_tensor_is_refused_quickly() -> None:
    shape = numpy_helper.from_array(np.asarray([1 << 20, 1 << 20], np.int64), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert refusal(model(nodes, (1, 1 << 20), [shape]).SerializeToString()).code == "too_large"


def test_sub_graphs_nested_without_end_are_refused() -> None:
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        graph = helper.make_graph(
            [helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)], "g", [], []
        )
    network = model()
    network.graph.node.extend(graph.node)
    assert refusal(network.SerializeToString()).code == "too_large"


def test_shape_arithmetic_is_folded_away() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.asarray([0], np.int64), "zero"),
        numpy_helper.from_array(np.asarray([-1], np.int64), "rest"),
    ]
    read = read_network(model(nodes, (2, 3, 4), constants).SerializeToString(), {}, 0)
    assert [node.op_type for node in read.nodes] == ["Reshape"]
    assert read.outputs[0].shape == (2, 12)


def test_a_branch_with_a_known_condition_is_taken() -> None:
    taken = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["z"])], "t", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["z"])], "e", [], [helper.make_tensor_value_info("z", 7, None)]
    )
    constants = [
        numpy_helper.from_array(np.asarray(True), "c"),
        numpy_helper.from_array(np.asarray(2, np.float32), "two"),
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=taken, else_branch=other)
    read = read_network(model([node], initialisers=constants).SerializeToString(), {}, 0)
    assert [node.op_type for node in read.nodes] == ["Mul"]


def test_dropout_and_identity_leave_no_trace_and_outputs_keep_their_names() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b", "mask"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    read = read_network(model(nodes).SerializeToString(), {}, 0)
    assert [(node.op_type, list(node.input), list(node.output)) for node in read.nodes] == [("Relu", ["x"], ["y"])]


def test_the_graph_key_ignores_names_and_weights_and_sees_shapes_and_wiring() -> None:
    def network(prefix: str, scale: float, channels: int = 40, stride: int = 1) -> str:
        weight = numpy_helper.from_array(np.full((channels, 3, 3, 3), scale, np.float32), f"{prefix}w")
        nodes = [
            helper.make_node("Conv", ["x", f"{prefix}w"], [f"{prefix}c"], strides=[stride, stride]),
            helper.make_node("Relu", [f"{prefix}c"], ["y"]),
        ]
        return graph_key(read_network(model(nodes, initialisers=[weight]).SerializeToString(), {}, 0))

    assert network("a", 1.0) == network("b", 2.0)
    assert len({network("a", 1.0), network("a", 1.0, channels=41), network("a", 1.0, stride=2)}) == 3
