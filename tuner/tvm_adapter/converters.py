"""Converters of our own for ONNX operators that TVM's importer spells in a way that hinders later passes.

TVM writes Clip, Pad and some others straight as tensor programs, which no layout pass can look into, and stacks the
operands of Max and Min in memory; powers become calls of `pow`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

Converter = Callable[[Any, list[Any], dict[str, Any]], Any]
"""(block builder, inputs, attributes) -> expression, or None to leave the node to TVM's converter."""


class Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with our converters before its own."""

    def __init__(self) -> None:
        super().__init__({}, "float32")

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        converter = CONVERTERS.get(op_name)
        result = converter(self.bb, list(inputs), attrs) if converter is not None else None
        if result is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return self.bb.normalize(result)


def _number(expr: Any) -> float | None:
    """The value of a constant with one element."""
    if not isinstance(expr, tvm.ir.GenericConst):
        return None
    value = expr.value.numpy()
    return float(value.reshape(-1)[0]) if value.size == 1 else None


def _given(inputs: list[Any], position: int) -> Any:
    return inputs[position] if position < len(inputs) else None


def _clip(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    dtype = np.dtype(str(inputs[0].ty.dtype))
    if dtype.kind != "f":
        return None
    bounds = []
    for position, key, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        expr = _given(inputs, position)
        bound = float(attrs.get(key, default)) if expr is None else _number(expr)
        if bound is None:
            return None
        bounds.append(default if np.isnan(bound) else bound)
    low, high = bounds
    if np.isinf(high):
        return inputs[0] if np.isinf(low) else _no_less(inputs[0], low, dtype)
    if np.isinf(low):
        return relax.op.minimum(inputs[0], relax.const(high, dtype.name))
    return relax.op.clip(inputs[0], low, high)


def _no_less(value: Any, low: float, dtype: Any) -> Any:
    return relax.op.nn.relu(value) if low == 0 else relax.op.maximum(value, relax.const(low, dtype.name))


def _pairwise(operator: Callable[[Any, Any], Any]) -> Converter:
    def convert(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        return functools.reduce(lambda left, right: builder.normalize(operator(left, right)), inputs)

    return convert


def _mean(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    total = _pairwise(relax.op.add)(builder, inputs, attrs)
    return relax.op.divide(total, relax.const(len(inputs), str(inputs[0].ty.dtype)))


def _power(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    base, exponent = inputs[0], _number(inputs[1])
    if isinstance(base, tvm.ir.GenericConst) or np.dtype(str(base.ty.dtype)).kind != "f":
        return None
    if exponent in (2.0, 3.0):
        square = builder.normalize(relax.op.multiply(base, base))
        return square if exponent == 2.0 else relax.op.multiply(square, base)
    return relax.op.sqrt(base) if exponent == 0.5 else None


def _pad(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    mode = attrs.get("mode", b"constant").decode()
    pads = _given(inputs, 1)
    if pads is None or not isinstance(pads, tvm.ir.GenericConst) or _given(inputs, 3) is not None or mode != "constant":
        return None
    value = _given(inputs, 2)
    fill = 0.0 if value is None else _number(value)
    widths = [int(width) for width in pads.value.numpy()]
    if fill is None or min(widths) < 0:
        return None
    rank = len(widths) // 2
    pairs = [widths[axis + side * rank] for axis in range(rank) for side in (0, 1)]
    return relax.op.nn.pad(inputs[0], pairs, "constant", fill)


def _gather(builder: Any, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """take with indices brought into range: TVM's own reads outside of the tensor for indices that are not."""
    data, indices = inputs
    if not isinstance(data.ty, relax.TensorType) or not isinstance(indices.ty, relax.TensorType):
        return None
    axis = int(attrs.get("axis", 0)) % len(data.ty.shape)
    extent = int(data.ty.shape[axis])
    if isinstance(indices, tvm.ir.GenericConst):
        values = indices.value.numpy()
        indices = relax.const(np.where(values < 0, values + extent, values).astype(values.dtype))
    else:
        dtype = str(indices.ty.dtype)
        negative = builder.normalize(relax.op.less(indices, relax.const(0, dtype)))
        wrapped = builder.normalize(relax.op.add(indices, relax.const(extent, dtype)))
        indices = builder.normalize(relax.op.where(negative, wrapped, indices))
    return relax.op.take(data, indices, axis, mode="clip")


CONVERTERS: dict[str, Converter] = {
    "Clip": _clip,
    "Gather": _gather,
    "Pad": _pad,
    "Pow": _power,
    "Max": _pairwise(relax.op.maximum),
    "Min": _pairwise(relax.op.minimum),
    "Sum": _pairwise(relax.op.add),
    "Mean": _mean,
}
