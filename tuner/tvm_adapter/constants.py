"""Compute on constants with numpy, never through the compiler: folding through LLVM takes many seconds a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crosstune.tuner.frontends.network import Array, Weight

BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "where": np.where,
}
UNARY: dict[str, Callable[[Array], Array]] = {
    "sqrt": np.sqrt,
    "rsqrt": lambda value: 1.0 / np.sqrt(value),
    "exp": np.exp,
    "log": np.log,
    "negative": np.negative,
    "abs": np.abs,
    "square": np.square,
    "logical_not": np.logical_not,
}
RESHAPING = ("reshape", "expand_dims", "squeeze", "flatten")


def folded(name: str, attrs: Any, weights: list[Weight], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Weight | None:
    """The result of Relax operator `name` on constants, to be computed when asked for; None when it is not foldable.

    shape, dtype: of the result.
    """
    function = _function(name, attrs, shape)
    if function is None:
        return None
    result = Weight(shape, dtype, lambda: np.asarray(function(*(weight.value() for weight in weights))).astype(dtype))
    return Weight.of(result.value()) if all(weight.known for weight in weights) else result


def _function(name: str, attrs: Any, shape: tuple[int, ...]) -> Callable[..., Array] | None:
    if name in RESHAPING:
        return lambda value: value.reshape(shape)
    if name in BINARY:
        return BINARY[name]
    if name in UNARY:
        return UNARY[name]
    if name == "astype":
        return lambda value: value
    if name == "broadcast_to":
        return lambda value: np.broadcast_to(value, shape)
    if name == "permute_dims":
        axes = None if attrs.axes is None else tuple(int(axis) for axis in attrs.axes)
        return lambda value: np.transpose(value, axes)
    if name == "concat":
        joined = int(attrs.axis)
        return lambda *values: np.concatenate(values, joined)
    if name == "take":
        axis = None if attrs.axis is None else int(attrs.axis)
        return lambda value, indices: np.take(value, indices, axis)
    return None


def sliced(
    weight: Weight, axes: list[int], begin: list[int], end: list[int], strides: list[int], shape: tuple[int, ...]
) -> Weight:
    """A strided slice of a constant."""

    def cut(value: Array) -> Array:
        index = [slice(None)] * value.ndim
        for axis, first, last, step in zip(axes, begin, end, strides, strict=True):
            index[axis] = slice(first, None if step < 0 and last < -value.shape[axis] else last, step)
        return value[tuple(index)].reshape(shape)

    result = Weight(shape, weight.dtype, lambda: cut(weight.value()))
    return Weight.of(result.value()) if weight.known else result


def split(weight: Weight, axis: int, starts: list[int], shapes: list[tuple[int, ...]]) -> list[Weight]:
    """Parts of a constant along one axis; starts and shapes of the parts."""
    parts = []
    for start, shape in zip(starts, shapes, strict=True):
        strides = [1]
        parts.append(sliced(weight, [axis], [start], [start + shape[axis]], strides, shape))
    return parts


def aligned(weight: Weight, rank: int, order: tuple[int, ...]) -> Weight:
    """A broadcast operand padded to `rank`, transposed to `order`, and freed of leading unit axes again."""
    padded = (1,) * (rank - len(weight.shape)) + weight.shape
    stored = tuple(padded[axis] for axis in order)
    while stored and stored[0] == 1:
        stored = stored[1:]
    if math.prod(stored) == 1 and weight.known:
        stored = ()
    shape = stored
    result = Weight(shape, weight.dtype, lambda: weight.value().reshape(padded).transpose(order).reshape(shape))
    return Weight.of(result.value()) if weight.known else result
