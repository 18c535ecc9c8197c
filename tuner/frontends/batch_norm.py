"""Fold batch normalisation into the layer before it, on the ONNX graph, before any layout or decomposition.

In inference y = (x - mean) / sqrt(variance + epsilon) * scale + bias is a multiplication and an addition per channel:
y = x * factor + offset. Behind a convolution or a matrix product (dense, grouped, depthwise, transposed, with a bias
or a channel-wise Add, Mul or Sub in between) the factor goes into the weights and the offset into the bias; alone it
becomes Mul and Add with constants computed here. Weights may come late: everything is derived, nothing computed twice.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from crosstune.tuner.frontends.network import Array, Network, Weight, attributes, derive
from crosstune.tuner.frontends.simplify import add_constant

CHANNEL_AXIS = 1


def fold_batch_norms(network: Network) -> int:
    """Fold every batch normalisation and channel-wise constant Mul or Add; returns how many went into a layer."""
    _normalisations_to_affine(network)
    network.drop_unused()
    folded = 0
    while _fold_one(network):
        folded += 1
    network.drop_unused()
    return folded


def _normalisations_to_affine(network: Network) -> None:
    """Replace each BatchNormalization of constants by Mul and Add."""
    nodes: list[onnx.NodeProto] = []
    for node in network.nodes:
        parameters = [network.constants.get(name) for name in node.input[1:5]]
        rank = len(network.shape(node.input[0]) or ())
        if node.op_type != "BatchNormalization" or len(parameters) != 4 or rank < 2 or None in parameters:
            nodes.append(node)
            continue
        nodes.extend(_affine(network, node, [weight for weight in parameters if weight is not None], rank))
    network.nodes = nodes


def _affine(network: Network, node: onnx.NodeProto, parameters: list[Weight], rank: int) -> list[onnx.NodeProto]:
    epsilon = np.float64(attributes(node).get("epsilon", 1e-5))
    column = (-1, *(1,) * (rank - 2))
    scale, bias, mean, variance = parameters
    dtype = network.types[node.input[0]].dtype if node.input[0] in network.types else scale.dtype

    def factor(scale: Array, variance: Array) -> Array:
        return (scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)).reshape(column).astype(dtype)

    def offset(scale: Array, bias: Array, mean: Array, variance: Array) -> Array:
        shrink = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return (bias.astype(np.float64) - mean.astype(np.float64) * shrink).reshape(column).astype(dtype)

    result = node.output[0]
    scaled = network.fresh(f"{result}/scaled")
    shape = (scale.elements, *(1,) * (rank - 2))
    factor_name = add_constant(network, f"{result}/factor", derive(factor, scale, variance, shape=shape))
    offset_name = add_constant(network, f"{result}/offset", derive(offset, scale, bias, mean, variance, shape=shape))
    network.copy_type(node.input[0], scaled)
    return [
        helper.make_node("Mul", [node.input[0], factor_name], [scaled], name=f"{node.name}/factor"),
        helper.make_node("Add", [scaled, offset_name], [result], name=f"{node.name}/offset"),
    ]


def _fold_one(network: Network) -> bool:
    producers = {name: node for node in network.nodes for name in node.output}
    consumers = network.consumers()
    for node in network.nodes:
        side = _constant_side(network, node)
        if side is None:
            continue
        source = node.input[1 - side]
        before = producers.get(source)
        if before is None or len(consumers.get(source, [])) != 1 or source in network.output_names:
            continue
        vector = _per_channel(network, before, network.constants[node.input[side]])
        if vector is not None and _absorb(network, before, node, vector):
            return True
        if _combine(network, before, node, side):
            return True
    return False


def _constant_side(network: Network, node: onnx.NodeProto) -> int | None:
    """Which input of a Mul, Add, Sub or Div is the constant, when the node is `activation (op) constant`."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.input) != 2:
        return None
    constant = [name in network.constants for name in node.input]
    if constant == [False, True]:
        return 1
    return 0 if constant == [True, False] and node.op_type in ("Mul", "Add") else None


def _combine(network: Network, before: onnx.NodeProto, node: onnx.NodeProto, side: int) -> bool:
    """Merge two neighbours with constants: (x + a) + b, (x * a) * b, and (x + a) * b as x * b + a * b."""
    inner_side = _constant_side(network, before)
    kinds = (before.op_type, node.op_type)
    if inner_side is None or kinds not in (("Add", "Add"), ("Mul", "Mul"), ("Add", "Mul")):
        return False
    inner, outer = network.constants[before.input[inner_side]], network.constants[node.input[side]]
    if inner.dtype.kind != "f" or inner.dtype != outer.dtype:
        return False
    shape = np.broadcast_shapes(inner.shape, outer.shape)
    if shape not in (inner.shape, outer.shape):
        return False
    combined = derive(np.add if kinds[1] == "Add" else np.multiply, inner, outer, shape=shape)
    if kinds == ("Add", "Mul"):
        before.op_type, node.op_type = "Mul", "Add"
        before.input[inner_side] = node.input[side]
        node.input[side] = add_constant(network, f"{node.output[0]}/combined", combined)
        return True
    node.input[side] = add_constant(network, f"{node.output[0]}/combined", combined)
    node.input[1 - side] = before.input[1 - inner_side]
    network.nodes = [other for other in network.nodes if other is not before]
    return True


def _per_channel(network: Network, layer: onnx.NodeProto, constant: Weight) -> Weight | None:
    """`constant` as one value per output channel of `layer`, or None when it is of another form."""
    weight = network.constants.get(layer.input[1]) if len(layer.input) > 1 else None
    shape = network.shape(layer.output[0])
    if weight is None or shape is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    axis = CHANNEL_AXIS if layer.op_type in ("Conv", "ConvTranspose") else len(shape) - 1
    if len(weight.shape) != 2 and layer.op_type in ("Gemm", "MatMul"):
        return None
    channels = shape[axis]
    if len(constant.shape) > len(shape):
        return None
    aligned = (1,) * (len(shape) - len(constant.shape)) + constant.shape
    if any(extent != 1 for index, extent in enumerate(aligned) if index != axis) or aligned[axis] not in (1, channels):
        return None
    return derive(lambda value: np.broadcast_to(value.reshape(-1), (channels,)), constant, shape=(channels,))


def _absorb(network: Network, layer: onnx.NodeProto, node: onnx.NodeProto, vector: Weight) -> bool:
    if node.op_type in ("Add", "Sub"):
        if layer.op_type == "MatMul":
            return False  # a matrix product has no bias; the compiler fuses the addition
        values = derive(np.negative, vector) if node.op_type == "Sub" else vector
        _add_to_bias(network, layer, values)
    else:
        factor = derive(np.reciprocal, vector) if node.op_type == "Div" else vector
        _scale(network, layer, factor)
    network.nodes = [other for other in network.nodes if other is not node]
    layer.output[0] = node.output[0]
    return True


def _bias(network: Network, layer: onnx.NodeProto) -> Weight | None:
    return network.constants.get(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None


def _set_bias(network: Network, layer: onnx.NodeProto, bias: Weight) -> None:
    name = add_constant(network, f"{layer.output[0]}/bias", bias)
    if len(layer.input) > 2:
        layer.input[2] = name
    else:
        layer.input.append(name)


def _add_to_bias(network: Network, layer: onnx.NodeProto, values: Weight) -> None:
    bias = _bias(network, layer)
    if layer.op_type == "Gemm":
        beta = np.float32(attributes(layer).get("beta", 1.0))
        values = derive(lambda value: (value / beta).astype(value.dtype), values)
    _set_bias(network, layer, values if bias is None else derive(np.add, bias, values))


def _scale(network: Network, layer: onnx.NodeProto, factor: Weight) -> None:
    weight = network.constants[layer.input[1]]
    given = attributes(layer)
    if layer.op_type == "Conv":
        scaled = derive(lambda w, f: w * f.reshape(-1, *(1,) * (w.ndim - 1)), weight, factor)
    elif layer.op_type == "ConvTranspose":
        groups = int(given.get("group", 1))
        scaled = derive(lambda w, f: _scale_transposed(w, f, groups), weight, factor)
    elif given.get("transB", 0):
        scaled = derive(lambda w, f: w * f.reshape(-1, 1), weight, factor)
    else:
        scaled = derive(lambda w, f: w * f.reshape(1, -1), weight, factor)
    layer.input[1] = add_constant(network, f"{layer.input[1]}/folded", scaled)
    bias = _bias(network, layer)
    if bias is not None:
        _set_bias(network, layer, derive(np.multiply, bias, factor))


def _scale_transposed(weight: Array, factor: Array, groups: int) -> Array:
    """weight (in, out / groups, ...): the out channels of group g belong to the inputs of group g."""
    inputs, outputs = weight.shape[:2]
    grouped = weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:])
    scaled = grouped * factor.reshape(groups, 1, outputs, *(1,) * (weight.ndim - 2))
    return np.asarray(scaled.reshape(weight.shape))
