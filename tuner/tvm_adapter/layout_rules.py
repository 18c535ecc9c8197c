"""How each family of Relax operators takes along the order in which its operands are stored.

A rule gets the call, its resolved operands and the rewriter; it emits the operator on stored tensors and says in which
order the result is, or falls back to the original order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tvm import ir, relax

from crosstune.tuner.frontends.network import Weight
from crosstune.tuner.tvm_adapter import axes, constants
from crosstune.tuner.tvm_adapter.axes import Order, Shape
from crosstune.tuner.tvm_adapter.placed import Placed, Value, shape_of, shape_of_type

ANY_ORDER = """
abs acos acosh asin asinh atan atanh bitwise_not ceil cos cosh erf exp floor isfinite isinf isnan log logical_not
negative round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc clip astype nn.relu nn.relu6 nn.gelu
nn.gelu_tanh nn.silu nn.leakyrelu nn.softplus nn.selu
"""
BROADCASTS = """
add subtract multiply divide floor_divide power maximum minimum mod floor_mod equal not_equal greater greater_equal
less less_equal logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift where
"""
REDUCTIONS = ("sum", "mean", "max", "min", "prod", "std", "variance")
CONVOLUTIONS = {"nn.conv1d": ("NWC", "WIO"), "nn.conv2d": ("NHWC", "HWIO"), "nn.conv3d": ("NDHWC", "DHWIO")}
CHANNELS_LAST = {"NCW": "NWC", "NCHW": "NHWC", "NCDHW": "NDHWC"}


class Rewriter(Protocol):
    """What a rule may ask of the function that is being rebuilt."""

    builder: Any
    convolutions: dict[str, int]

    def parameter(self, weight: Weight, order: Order | None = None) -> Any: ...
    def interned(self, source: Weight, made: Weight, rank: int, order: Order) -> Weight: ...
    def ordered(self, value: Value, order: Order) -> Any: ...
    def original(self, value: Value) -> Any: ...
    def place(self, expr: Any, order: Order | None = None) -> Value: ...
    def fall_back(self, name: str, call: Any, arguments: list[Value]) -> Value: ...


def elementwise(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value, *rest = arguments
    if not isinstance(value, Placed) or any(isinstance(entry, Placed) for entry in rest):
        return rewriter.fall_back(name, call, arguments)
    rest = [rewriter.original(entry) for entry in rest]
    return rewriter.place(ir.Call(call.op, [value.expr, *rest], call.attrs, call.ty_args), value.order)


def broadcast(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    rank = max(len(value.shape) for value in arguments)
    order = common_order(arguments, rank)
    full = any(isinstance(value, Placed) and len(value.shape) == rank for value in arguments)
    operands = []
    for value in arguments:
        if isinstance(value, Weight):
            weight = constants.aligned(value, rank, order) if full else value
            operands.append(rewriter.parameter(rewriter.interned(value, weight, rank, order)))
        elif len(value.shape) < rank and order != axes.identity(rank):
            padded = (1,) * (rank - len(value.shape)) + value.shape
            reshaped = rewriter.place(relax.op.reshape(rewriter.original(value), padded))
            operands.append(rewriter.ordered(reshaped, order))
        else:
            operands.append(
                rewriter.ordered(value, order if len(value.shape) == rank else axes.identity(len(value.shape)))
            )
    return rewriter.place(ir.Call(call.op, operands, call.attrs, call.ty_args), order)


def convolution(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    data, weight = arguments
    rank, attrs = len(data.shape), call.attrs
    data_layout, kernel_layout = CONVOLUTIONS[name]
    if CHANNELS_LAST.get(str(attrs.data_layout)) != data_layout or (rank != 4 and int(attrs.groups) != 1):
        return rewriter.fall_back(name, call, arguments)
    order = axes.channels_last(rank)
    kernel_order = (*range(2, rank), 1, 0)
    rewriter.convolutions[data_layout] = rewriter.convolutions.get(data_layout, 0) + 1
    function = getattr(relax.op.nn, name.removeprefix("nn."))
    result = function(
        rewriter.ordered(data, order),
        rewriter.ordered(weight, kernel_order),
        strides=_ints(attrs.strides),
        padding=_ints(attrs.padding),
        dilation=_ints(attrs.dilation),
        groups=int(attrs.groups),
        data_layout=data_layout,
        kernel_layout=kernel_layout,
        out_layout=data_layout,
    )
    return rewriter.place(result, order)


def pooling(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    (value,) = arguments
    rank = len(value.shape)
    last = CHANNELS_LAST.get(str(call.attrs.layout))
    if last is None or value.order == axes.identity(rank):
        return rewriter.fall_back(name, call, arguments)
    function = getattr(relax.op.nn, name.removeprefix("nn."))
    if "adaptive" in name:
        if value.order != axes.channels_last(rank):
            return rewriter.fall_back(name, call, arguments)
        return rewriter.place(function(value.expr, _ints(call.attrs.output_size), layout=last), value.order)
    if value.order == axes.channels_last(rank):
        return rewriter.place(function(value.expr, **_window(call.attrs), layout=last), value.order)
    if value.order[:2] != (0, 1):
        return rewriter.fall_back(name, call, arguments)
    # Any order of the spatial axes: the window is turned with them.
    space = [axis - 2 for axis in value.order[2:]]
    result = function(value.expr, **_window(call.attrs, space), layout=str(call.attrs.layout))
    return rewriter.place(result, value.order)


def reduction(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    (value,) = arguments
    rank = len(value.shape)
    given = call.attrs.axis
    reduced = set(range(rank)) if given is None else {int(axis) % rank for axis in given}
    places = sorted(value.order.index(axis) for axis in reduced)
    keep = bool(call.attrs.keepdims)
    order = value.order if keep else axes.without(value.order, reduced)
    return rewriter.place(getattr(relax.op, name)(value.expr, places, keep), order)


def along_axis(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    (value,) = arguments
    axis = value.order.index(int(call.attrs.axis) % len(value.shape))
    return rewriter.place(getattr(relax.op.nn, name.removeprefix("nn."))(value.expr, axis), value.order)


def layer_norm(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value, *parameters = arguments
    normalised = [int(axis) % len(value.shape) for axis in call.attrs.axes]
    if len(normalised) != 1:
        return rewriter.fall_back(name, call, arguments)
    place = value.order.index(normalised[0])
    given = [rewriter.original(parameter) for parameter in parameters]
    attrs = call.attrs
    result = relax.op.nn.layer_norm(
        value.expr,
        *given,
        axes=[place],
        epsilon=float(attrs.epsilon),
        center=bool(attrs.center),
        scale=bool(attrs.scale),
    )
    return rewriter.place(result, value.order)


def prelu(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value, slope = arguments
    axis = value.order.index(int(call.attrs.axis) % len(value.shape))
    return rewriter.place(relax.op.nn.prelu(value.expr, rewriter.original(slope), axis), value.order)


def concat(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    parts = arguments[0]
    rank = len(parts[0].shape)
    order = common_order(parts, rank)
    axis = order.index(int(call.attrs.axis) % rank)
    return rewriter.place(relax.op.concat([rewriter.ordered(part, order) for part in parts], axis), order)


def split(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    (value,) = arguments
    attrs = call.attrs
    given = attrs.indices_or_sections
    sections = [int(index) for index in given] if hasattr(given, "__len__") else int(given)
    axis = value.order.index(int(attrs.axis) % len(value.shape))
    return rewriter.place(relax.op.split(value.expr, sections, axis), value.order)


def strided_slice(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value = arguments[0]
    sliced, begin, end, strides = slice_arguments(call, len(value.shape))
    places = [value.order.index(axis) for axis in sliced]
    return rewriter.place(relax.op.strided_slice(value.expr, places, begin, end, strides), value.order)


def pad(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value = arguments[0]
    widths = _ints(call.attrs.pad_width)
    turned = [width for axis in value.order for width in widths[2 * axis : 2 * axis + 2]]
    mode = str(call.attrs.pad_mode)
    if mode != "constant" and value.order not in (
        axes.identity(len(value.shape)),
        axes.channels_last(len(value.shape)),
    ):
        return rewriter.fall_back(name, call, arguments)
    return rewriter.place(relax.op.nn.pad(value.expr, turned, mode, float(call.attrs.pad_value)), value.order)


def resize(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value, size = arguments
    attrs = call.attrs
    if value.order != axes.channels_last(4) or str(attrs.layout) != "NCHW":
        return rewriter.fall_back(name, call, arguments)
    result = relax.op.image.resize2d(
        value.expr,
        size,
        roi=[float(edge) for edge in attrs.roi],
        layout="NHWC",
        method=str(attrs.method),
        coordinate_transformation_mode=str(attrs.coordinate_transformation_mode),
        rounding_method=str(attrs.rounding_method),
        cubic_alpha=float(attrs.cubic_alpha),
        cubic_exclude=int(attrs.cubic_exclude),
        extrapolation_value=float(attrs.extrapolation_value),
    )
    return rewriter.place(result, value.order)


def permute(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    (value,) = arguments
    rank = len(value.shape)
    given = call.attrs.axes
    turned = tuple(reversed(range(rank))) if given is None else tuple(int(axis) % rank for axis in given)
    shape = tuple(value.shape[axis] for axis in turned)
    return Placed(value.expr, axes.transposed(value.order, turned), shape)


def reshape(rewriter: Rewriter, name: str, call: Any, arguments: list[Value]) -> Value:
    value = arguments[0]
    after = shape_of_type(rewriter.builder.normalize(_reshaped(rewriter, call, value)).ty)
    if value.order == axes.identity(len(value.shape)):
        return _as_shape(rewriter, value.expr, after, axes.identity(len(after)))
    groups = axes.reshape_groups(value.shape, after)
    order = axes.order_for_reshape(value.shape, value.order, groups)
    result = axes.order_after_reshape(value.shape, order, groups)
    return _as_shape(rewriter, rewriter.ordered(value, order), axes.stored_shape(after, result), result)


def _reshaped(rewriter: Rewriter, call: Any, value: Placed) -> Any:
    """The call on a stand-in of the original shape, to learn the shape of its result."""
    stand_in = relax.Var("stand_in", relax.TensorType(value.shape, value.expr.ty.dtype))
    return ir.Call(call.op, [stand_in, *call.args[1:]], call.attrs, call.ty_args)


def _as_shape(rewriter: Rewriter, expr: Any, stored: Shape, order: Order) -> Value:
    if shape_of(expr) == stored:
        return Placed(expr, order, tuple(stored[order.index(axis)] for axis in range(len(stored))))
    return rewriter.place(relax.op.reshape(expr, stored), order)


def common_order(values: Sequence[Value], rank: int) -> Order:
    """The order in which most elements of the activations of full rank are stored."""
    elements: dict[Order, int] = {}
    for value in values:
        if isinstance(value, Placed) and len(value.shape) == rank:
            elements[value.order] = elements.get(value.order, 0) + math.prod(value.shape)
    if not elements:
        return axes.identity(rank)
    return max(elements, key=lambda order: (elements[order], order != axes.identity(rank)))


def _ints(values: Any) -> list[int]:
    return [int(value) for value in values]


def _window(attrs: Any, space: list[int] | None = None) -> dict[str, Any]:
    """A pooling window, with its spatial axes in the order `space`."""
    size, strides, dilation = _ints(attrs.pool_size), _ints(attrs.strides), _ints(attrs.dilation)
    padding = _ints(attrs.padding)
    space = list(range(len(size))) if space is None else space
    before, after = padding[: len(size)], padding[len(size) :]
    return {
        "pool_size": [size[axis] for axis in space],
        "strides": [strides[axis] for axis in space],
        "dilation": [dilation[axis] for axis in space],
        "padding": [before[axis] for axis in space] + [after[axis] for axis in space],
        "ceil_mode": bool(attrs.ceil_mode),
        "count_include_pad": bool(attrs.count_include_pad),
    }


def slice_arguments(call: Any, rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """axes, begin, end, strides of a strided_slice."""
    sliced, begin, end = (_ints(_fields(argument)) for argument in call.args[1:4])
    strides = _ints(_fields(call.args[4])) if len(call.args) > 4 else [1] * len(sliced)
    return [axis % rank for axis in sliced], begin, end, strides


def _fields(expr: Any) -> Any:
    return expr.fields if isinstance(expr, relax.Tuple) else expr.values


Rule = Callable[[Rewriter, str, Any, list[Value]], Value]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ANY_ORDER.split(), elementwise),
    **dict.fromkeys(BROADCASTS.split(), broadcast),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(
        [f"nn.{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg") for rank in (1, 2, 3)], pooling
    ),
    "nn.softmax": along_axis,
    "nn.log_softmax": along_axis,
    "nn.layer_norm": layer_norm,
    "nn.prelu": prelu,
    "nn.pad": pad,
    "concat": concat,
    "split": split,
    "strided_slice": strided_slice,
    "image.resize2d": resize,
    "permute_dims": permute,
    "reshape": reshape,
    "expand_dims": reshape,
    "squeeze": reshape,
    "flatten": reshape,
}
