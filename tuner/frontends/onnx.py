"""The ONNX front end: from uploaded bytes to a checked, static, simplified network; no compiler is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends import weights as synthetic
from crosstune.tuner.frontends.batch_norm import fold_batch_norms
from crosstune.tuner.frontends.folding import constant_nodes_to_weights, fold
from crosstune.tuner.frontends.network import SMALL_ELEMENTS, Array, Network, Weight
from crosstune.tuner.frontends.operators import refuse_unsupported
from crosstune.tuner.frontends.safety import STANDARD_DOMAINS, load_model, too_large
from crosstune.tuner.frontends.shapes import require_static, static_inputs
from crosstune.tuner.frontends.simplify import simplify

__all__ = ["Shapes", "load_model", "network_of", "read_network", "seed_weights"]

Shapes = Mapping[str, Sequence[int]]
LARGEST_WEIGHT = 1 << 31
"""Elements of one weight that a ConstantOfShape makes."""


def read_network(data: bytes, shapes: Shapes, seed: int) -> Network:
    """The network in `data`, ready for the compiler: static shapes, known values folded, batch norms folded.

    shapes: input name -> sizes, for inputs with dimensions that the file leaves open.
    Missing weights stand as seeded random values (`synthetic_weights`). Raises NetworkRefused.
    """
    try:
        return _read(load_model(data), shapes, seed)
    except (UnicodeDecodeError, KeyError, IndexError) as error:
        # Damaged files hold names that are no text, unknown element types, nodes without inputs.
        raise NetworkRefused("invalid_network", f"the network is not valid ONNX: {error!r}") from error


def _read(model: onnx.ModelProto, shapes: Shapes, seed: int) -> Network:
    network, _ = network_of(model, shapes, seed)
    verdict = _check(network)
    fold(network)
    simplify(network)
    refuse_unsupported(network)
    if verdict is not None:
        raise verdict
    fold_batch_norms(network)
    simplify(network)
    fold(network)
    require_static(network)
    _require_outputs(network)
    return network


def network_of(model: onnx.ModelProto, shapes: Shapes | None, seed: int) -> tuple[Network, dict[str, Weight]]:
    """The graph of a loaded model as it is, and those of its constants that are synthetic.

    With `shapes` None the inputs stay as they are declared, open dimensions and all left out.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise NetworkRefused("unsupported_operator", "sparse initialisers are not supported; store them dense")
    nodes, tensors = constant_nodes_to_weights(list(graph.node))
    tensors |= {tensor.name: tensor for tensor in graph.initializer}
    network = Network(
        nodes=nodes,
        constants={},
        inputs=[] if shapes is None else static_inputs(graph, shapes),
        output_names=[output.name for output in graph.output],
        opset=next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 1),
    )
    missing = {}
    for name, tensor in tensors.items():
        weight = synthetic.weight_of(tensor)
        if weight is None:
            missing[name] = (tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type))
        else:
            network.constants[name] = weight
    made = _seed_missing(network, missing, seed)
    made |= _seed_constants_of_shape(network, seed)
    network.synthetic_weights = bool(made)
    return network, made


def _seed_missing(
    network: Network, missing: dict[str, tuple[tuple[int, ...], np.dtype[Any]]], seed: int
) -> dict[str, Weight]:
    consumers = network.consumers()
    made = {}
    # Roles look at which tensors are constants, so the missing ones must be there before any is given its values.
    for name, (shape, dtype) in missing.items():
        network.constants[name] = Weight(shape, dtype, lambda: np.zeros(0))
    for name, (shape, dtype) in missing.items():
        role = synthetic.role_of(name, shape, network, consumers)
        made[name] = network.constants[name] = synthetic.seeded(shape, dtype, role, seed, name)
    return made


def _seed_constants_of_shape(network: Network, seed: int) -> dict[str, Weight]:
    """Weights spelled as ConstantOfShape, all equal: give them random values.

    That is so when a layer takes a large one as its weights; then its smaller companions (biases, batch norm
    parameters) are as made up and get theirs too.
    """
    consumers = network.consumers()
    shapes = {}
    for node in network.nodes:
        extents = network.known(node.input[0]) if node.op_type == "ConstantOfShape" and node.input else None
        dtype = _fill_dtype(node)
        if extents is not None and dtype.kind == "f" and extents.size:
            shapes[node.output[0]] = (_filled_shape(node, extents), dtype)
    roles = {name: synthetic.role_of(name, shape, network, consumers) for name, (shape, _) in shapes.items()}
    if not any(roles[name].kind == "layer" and math.prod(shapes[name][0]) > SMALL_ELEMENTS for name in shapes):
        return {}
    network.nodes = [node for node in network.nodes if not node.output or node.output[0] not in shapes]
    for name, (shape, dtype) in shapes.items():
        network.constants[name] = Weight(shape, dtype, lambda: np.zeros(0))
    made = {}
    for name, (shape, dtype) in shapes.items():
        role = synthetic.role_of(name, shape, network, consumers)
        weight = synthetic.seeded(shape, dtype, role, seed, name)
        made[name] = network.constants[name] = weight if weight.elements > SMALL_ELEMENTS else Weight.of(weight.value())
    return made


def _filled_shape(node: onnx.NodeProto, extents: Array) -> tuple[int, ...]:
    shape = tuple(int(extent) for extent in extents.reshape(-1))
    if min(shape) < 0:
        raise NetworkRefused("invalid_network", f"tensor {node.output[0]!r} has a negative dimension")
    if math.prod(shape) > LARGEST_WEIGHT:
        raise too_large(f"the number of elements of {node.output[0]!r}", math.prod(shape), LARGEST_WEIGHT)
    return shape


def _fill_dtype(node: onnx.NodeProto) -> np.dtype[Any]:
    """The element type that a ConstantOfShape makes."""
    filled = (attribute.t for attribute in node.attribute if attribute.name == "value")
    return next((np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)) for tensor in filled), np.dtype("f"))


def seed_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy of `model` with every missing weight written into it: the values that `read_network` works with.

    Missing are initialisers of more than 1,024 elements without data and weights that ConstantOfShape makes.
    """
    _, made = network_of(model, None, seed)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.name in made:
            tensor.CopyFrom(numpy_helper.from_array(made[tensor.name].value(), tensor.name))
    written = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type in ("ConstantOfShape", "Constant") and node.output[0] in made:
            graph.initializer.append(numpy_helper.from_array(made[node.output[0]].value(), node.output[0]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    result.ir_version = max(result.ir_version, 4)  # since 4 an initialiser need not be a graph input
    _drop_unread_inputs(graph, written)
    return result


def _drop_unread_inputs(graph: onnx.GraphProto, stored: set[str]) -> None:
    """Old files list every initialiser as an input too; those are not for the caller to give."""
    read = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(kept)
    initialisers = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initialisers)


def _check(network: Network) -> NetworkRefused | None:
    """Run ONNX's own checker (without the large weights); its verdict, for when nothing more exact can be said."""
    try:
        onnx.checker.check_model(_checkable(network))
    except onnx.checker.ValidationError as error:
        text = str(error).split("\n==> Context")[0].strip()
        return NetworkRefused("invalid_network", f"the network is not valid ONNX: {text}")
    return None


def _checkable(network: Network) -> onnx.ModelProto:
    model = network.to_model(with_values=False)
    for output in model.graph.output:
        if not output.HasField("type"):
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            output.type.tensor_type.shape.SetInParent()
    return model


def _require_outputs(network: Network) -> None:
    for name in network.output_names:
        if name in network.constants:
            raise NetworkRefused("invalid_network", f"output {name!r} does not depend on any input", {"output": name})
        if name not in network.types:
            raise NetworkRefused("invalid_network", f"nothing makes the network's output {name!r}", {"output": name})
