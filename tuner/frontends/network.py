"""A network while the front end works on it: nodes in order, constants whose values may come late.

Large weights are `Weight`s that compute their values only when somebody asks, so that an import, which needs shapes
and dtypes alone, never touches them, and a network with and one without weights go exactly the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

SMALL_ELEMENTS = 1024
"""Initialisers up to this size are part of the graph: their values are always there and may be folded into it."""


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A constant tensor; `compute` yields its values, which `known` ones have at hand and the graph may depend on."""

    shape: Shape
    dtype: np.dtype[Any]
    compute: Callable[[], Array]
    known: bool = False

    @classmethod
    def of(cls, value: Array) -> Weight:
        return cls(value.shape, value.dtype, lambda: value, known=True)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def value(self) -> Array:
        found = np.ascontiguousarray(self.compute()).reshape(self.shape)
        return found if found.dtype == self.dtype else found.astype(self.dtype)


def derive(function: Callable[..., Array], *weights: Weight, shape: Shape | None = None) -> Weight:
    """`function` of the values of `weights`: at once when all are known, else when asked for.

    The result has `shape` (that of the first weight when not given) and the dtype of the first weight.
    """
    first = weights[0]
    result = Weight(
        first.shape if shape is None else shape, first.dtype, lambda: function(*(weight.value() for weight in weights))
    )
    return Weight.of(result.value()) if all(weight.known for weight in weights) else result


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(slots=True)
class Network:
    """A static graph: `types` holds dtype and shape of every tensor once shapes are inferred."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, Weight]
    inputs: list[TensorSpec]
    output_names: list[str]
    opset: int
    synthetic_weights: bool = False
    types: dict[str, TensorSpec] = field(default_factory=dict)
    names_made: int = 0

    @property
    def outputs(self) -> list[TensorSpec]:
        return [self.types[name] for name in self.output_names]

    def shape(self, name: str) -> Shape | None:
        """Static shape of a tensor, or None where it is not (yet) known."""
        if name in self.constants:
            return self.constants[name].shape
        return self.types[name].shape if name in self.types else None

    def known(self, name: str) -> Array | None:
        weight = self.constants.get(name)
        return weight.value() if weight is not None and weight.known else None

    def consumers(self) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
        """tensor name -> the nodes that read it, with the input's position; graph outputs are not listed."""
        found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.nodes:
            for position, name in enumerate(node.input):
                found.setdefault(name, []).append((node, position))
        return found

    def fresh(self, stem: str) -> str:
        """A tensor name that nothing in the network has."""
        self.names_made += 1
        return f"{stem}#{self.names_made}"

    def copy_type(self, source: str, name: str) -> None:
        """Let tensor `name` have the type of `source`."""
        if source in self.types:
            spec = self.types[source]
            self.types[name] = TensorSpec(name, spec.dtype, spec.shape)

    def replace_uses(self, old: str, new: str) -> None:
        for node in self.nodes:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new

    def drop_unused(self) -> None:
        """Remove nodes and constants that no output needs."""
        wanted = set(self.output_names)
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(read_names(node))
        self.nodes = kept[::-1]
        self.constants = {name: weight for name, weight in self.constants.items() if name in wanted}

    def to_model(self, *, with_values: bool) -> onnx.ModelProto:
        """As ONNX; without values the unknown constants become graph inputs behind the real ones."""
        inputs = [_value_info(spec.name, spec.dtype, spec.shape) for spec in self.inputs]
        initialisers = []
        for name, weight in self.constants.items():
            if with_values or weight.known:
                initialisers.append(numpy_helper.from_array(weight.value(), name))
            else:
                inputs.append(_value_info(name, weight.dtype, weight.shape))
        outputs = [
            _value_info(name, self.types[name].dtype, self.types[name].shape)
            if name in self.types
            else onnx.ValueInfoProto(name=name)
            for name in self.output_names
        ]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, initialisers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


def read_names(node: onnx.NodeProto) -> Iterable[str]:
    """Names that a node reads, also those that its sub-graphs take from outside."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                yield from read_names(inner)
            yield from (output.name for output in graph.output)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _value_info(name: str, dtype: np.dtype[Any], shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
