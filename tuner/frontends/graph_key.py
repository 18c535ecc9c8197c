"""What makes two networks the same whatever their weights: operators, attributes, shapes, dtypes and wiring."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from crosstune.tuner.contracts import sha256_json
from crosstune.tuner.frontends.network import Network, Weight, attributes


def graph_key(network: Network) -> str:
    """sha256 (hex) over the graph without names and without floating-point values.

    Tensors are numbered in the order in which they first appear, so that a renamed network has the same key; small
    integers (axes, sizes) belong to the graph.
    """
    numbers: dict[str, int] = {}

    def number(name: str) -> int | None:
        return numbers.setdefault(name, len(numbers)) if name else None

    for spec in network.inputs:
        number(spec.name)
    described: list[Any] = [[spec.dtype.name, list(spec.shape)] for spec in network.inputs]
    seen: set[str] = set()
    for node in network.nodes:
        for name in node.input:
            if name in network.constants and name not in seen:
                seen.add(name)
                described.append([number(name), *_constant(network.constants[name])])
        given = {key: _plain(value) for key, value in sorted(attributes(node).items())}
        described.append([node.op_type, [number(n) for n in node.input], [number(n) for n in node.output], given])
    outputs = [[number(spec.name), spec.dtype.name, list(spec.shape)] for spec in network.outputs]
    return sha256_json({"opset": network.opset, "graph": described, "outputs": outputs})


def _constant(weight: Weight) -> list[Any]:
    values = weight.value().tolist() if weight.known and weight.dtype.kind in "iub" else None
    return [weight.dtype.name, list(weight.shape), values]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return [value.data_type, list(value.dims)]
    if isinstance(value, onnx.GraphProto):
        return [node.op_type for node in value.node]
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(entry) for entry in value]
    return value
