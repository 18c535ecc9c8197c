"""Small rewrites of the graph that leave less for the compiler: no-ops removed, expensive spellings replaced."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from crosstune.tuner.frontends.network import Network, Weight, attributes


def simplify(network: Network) -> None:
    """Remove operators that do nothing in inference and spell sums as additions."""
    _split_sums(network)
    kept: list[onnx.NodeProto] = []
    for node in network.nodes:
        if _does_nothing(network, node) and not _joins_input_and_output(network, node):
            _bypass(network, node, kept)
        else:
            kept.append(node)
    network.nodes = kept
    network.drop_unused()


def _does_nothing(network: Network, node: onnx.NodeProto) -> bool:
    rule = NO_OPERATIONS.get(node.op_type)
    return rule is not None and rule(network, node)


def _inference_dropout(network: Network, node: onnx.NodeProto) -> bool:
    training = network.known(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    mask = node.output[1] if len(node.output) > 1 else ""
    return not np.any(training) and (not mask or mask not in network.consumers())


def _same_type(network: Network, node: onnx.NodeProto) -> bool:
    source, result = network.types.get(node.input[0]), network.types.get(node.output[0])
    return source is not None and result is not None and source.dtype == result.dtype


def _same_shape(network: Network, node: onnx.NodeProto) -> bool:
    shape = network.shape(node.input[0])
    return shape is not None and shape == network.shape(node.output[0])


def _whole_slice(network: Network, node: onnx.NodeProto) -> bool:
    steps = network.known(node.input[4]) if len(node.input) > 4 and node.input[4] else None
    return _same_shape(network, node) and (steps is None or bool(np.all(steps > 0)))


def _no_padding(network: Network, node: onnx.NodeProto) -> bool:
    return _same_shape(network, node) and len(node.input) > 1 and not np.any(network.known(node.input[1]))


NO_OPERATIONS: dict[str, Callable[[Network, onnx.NodeProto], bool]] = {
    "Identity": lambda network, node: True,
    "Dropout": _inference_dropout,
    "Cast": _same_type,
    "CastLike": _same_type,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Slice": _whole_slice,
    "Pad": _no_padding,
    "Concat": lambda network, node: len(node.input) == 1,
    "Sum": lambda network, node: len(node.input) == 1,
    "Transpose": lambda network, node: (
        list(attributes(node).get("perm", [])) == list(range(len(network.shape(node.input[0]) or ())))
        and bool(network.shape(node.input[0]))
    ),
}


def _joins_input_and_output(network: Network, node: onnx.NodeProto) -> bool:
    """True when removing the node would make a graph input or a constant a graph output."""
    if node.output[0] not in network.output_names:
        return False
    source = node.input[0]
    return (
        source in network.constants
        or source in network.output_names
        or any(spec.name == source for spec in network.inputs)
    )


def _bypass(network: Network, node: onnx.NodeProto, kept: list[onnx.NodeProto]) -> None:
    source, result = node.input[0], node.output[0]
    if result not in network.output_names:
        network.replace_uses(result, source)
        return
    # The output keeps its name: its producer writes it directly.
    for producer in kept:
        for position, name in enumerate(producer.output):
            if name == source:
                producer.output[position] = result
    network.replace_uses(source, result)


def _split_sums(network: Network) -> None:
    """Sum of n tensors as n - 1 additions, which later passes know."""
    nodes: list[onnx.NodeProto] = []
    for node in network.nodes:
        if node.op_type != "Sum" or len(node.input) < 2:
            nodes.append(node)
            continue
        left = node.input[0]
        for index, right in enumerate(node.input[1:], start=1):
            last = index == len(node.input) - 1
            output = node.output[0] if last else f"{node.output[0]}/sum{index}"
            nodes.append(onnx.helper.make_node("Add", [left, right], [output], name=f"{node.name}/{index}"))
            left = output
    network.nodes = nodes


def add_constant(network: Network, stem: str, value: Weight) -> str:
    name = network.fresh(stem)
    network.constants[name] = value
    return name
