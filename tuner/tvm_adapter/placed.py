"""Tensors of a function under rewriting: expressions that know in which order they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crosstune.tuner.tvm_adapter.axes import Order, Shape


@dataclass(slots=True, eq=False)
class Placed:
    """A tensor in the new function: stored in `order` of its original shape."""

    expr: Any
    order: Order
    shape: Shape
    copies: dict[Order, Any] = field(default_factory=dict)
    """The same tensor in other orders, where somebody asked for them."""


Value = Any
"""Placed, Weight, a list of them (a tuple in Relax), or an expression that is no tensor (a shape, a number)."""


def shape_of(expr: Any) -> Shape:
    return shape_of_type(expr.ty)


def shape_of_type(ty: Any) -> Shape:
    return tuple(int(extent) for extent in ty.shape.values)
