"""Fold what is known of a graph into constants: shape arithmetic, masks, positions.

Only small constants take part by value, so that a network with weights and the same network stripped of them fold
alike. Nodes are evaluated by ONNX's own numpy reference implementation.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from crosstune.tuner.frontends.network import Array, Network, Weight, attributes
from crosstune.tuner.frontends.shapes import infer_types

LARGEST_RESULT = 1 << 20
"""Elements; beyond it a foldable node stays a node."""
ROUNDS = 30
GROWING = frozenset(["ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "EyeLike", "Upsample"])
"""Operators whose result may be much larger than what they are given."""
NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def fold(network: Network) -> None:
    """Alternate shape inference and folding until neither finds anything new; `network.types` is right afterwards."""
    for _ in range(ROUNDS):
        infer_types(network)
        if not _fold_once(network):
            return
    infer_types(network)


def _fold_once(network: Network) -> bool:
    kept: list[onnx.NodeProto] = []
    changed = False
    for node in network.nodes:
        if node.op_type == "If" and (condition := network.known(node.input[0])) is not None:
            kept.extend(_branch(network, node, bool(condition.reshape(-1)[0])))
            changed = True
            continue
        values = _evaluate(network, node)
        if values is None:
            kept.append(node)
            continue
        changed = True
        for name, value in zip(node.output, values, strict=False):
            if name:
                network.constants[name] = Weight.of(value)
    network.nodes = kept
    if changed:
        network.drop_unused()
    return changed


def _evaluate(network: Network, node: onnx.NodeProto) -> list[Array] | None:
    """The node's results when the graph fixes them."""
    if node.op_type == "Shape" and (shape := network.shape(node.input[0])) is not None:
        bounds = attributes(node)
        return [np.asarray(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)]
    if node.op_type == "Size" and (shape := network.shape(node.input[0])) is not None:
        return [np.asarray(int(np.prod(shape)), np.int64)]
    if node.op_type in NEVER or any(attribute.HasField("g") for attribute in node.attribute):
        return None
    inputs: dict[str, Array] = {}
    for name in node.input:
        value = network.known(name) if name else None
        if value is not None:
            inputs[name] = value
        elif name:
            return None
    return None if _too_large(network, node, inputs) else _run(node, inputs, network.opset)


def _too_large(network: Network, node: onnx.NodeProto, inputs: dict[str, Array]) -> bool:
    """True unless the size of the result is known to be harmless before it is computed."""
    if node.op_type not in GROWING:
        return sum(value.size for value in inputs.values()) > LARGEST_RESULT
    shape = network.shape(node.output[0])
    if shape is None and node.op_type == "ConstantOfShape":
        shape = tuple(int(extent) for extent in inputs[node.input[0]])
    if shape is None and node.op_type == "Range":
        start, limit, step = (float(inputs[name].reshape(-1)[0]) for name in node.input)
        shape = (int(abs((limit - start) / step)) + 1,) if step else None
    return shape is None or int(np.prod(shape, dtype=np.float64)) > LARGEST_RESULT


def _run(node: onnx.NodeProto, inputs: dict[str, Array], opset: int) -> list[Array] | None:
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    graph = helper.make_graph(
        [node],
        "one",
        types,
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            results: list[Any] = ReferenceEvaluator(model).run(None, inputs)
        except Exception:  # noqa: BLE001 - not folding is always right; what is invalid is refused where it is used
            return None
    arrays = iter(np.asarray(value) for value in results)
    found = [next(arrays) if name else np.zeros(0) for name in node.output]
    return None if any(value.dtype.kind in "OUS" for value in found) else found


def _branch(network: Network, node: onnx.NodeProto, condition: bool) -> list[onnx.NodeProto]:
    """The nodes of the branch that an If with a known condition takes, writing the If's own outputs."""
    graph = attributes(node)["then_branch" if condition else "else_branch"]
    prefix = f"{node.output[0]}/branch/"
    names = {name: prefix + name for inner in graph.node for name in inner.output if name}
    names |= {tensor.name: prefix + tensor.name for tensor in graph.initializer}
    for tensor in graph.initializer:
        network.constants[names[tensor.name]] = Weight.of(numpy_helper.to_array(tensor))
    nodes = [_renamed(inner, names) for inner in graph.node]
    for outer, inner_output in zip(node.output, graph.output, strict=True):
        source = names.get(inner_output.name, inner_output.name)
        nodes.append(helper.make_node("Identity", [source], [outer]))
    return nodes


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for position, name in enumerate(copy.input):
        copy.input[position] = names.get(name, name)
    for position, name in enumerate(copy.output):
        copy.output[position] = names.get(name, name)
    for attribute in copy.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            renamed = [_renamed(inner, names) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(renamed)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
    return copy


CONSTANT_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant_nodes_to_weights(nodes: list[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], dict[str, onnx.TensorProto]]:
    """Split off Constant nodes as tensors, whichever attribute holds their value."""
    kept, found = [], {}
    for node in nodes:
        tensor = _constant_tensor(node) if node.op_type == "Constant" and not node.domain else None
        if tensor is None:
            kept.append(node)
        else:
            found[node.output[0]] = tensor
    return kept, found


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    values = attributes(node)
    if "value" in values:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(values["value"])
        return tensor
    for key, dtype in CONSTANT_ATTRIBUTES.items():
        if key in values:
            return numpy_helper.from_array(np.asarray(values[key], dtype), node.output[0])
    return None
