"""Our own layout pass on Relax: convolutions in NHWC with HWIO weights, decided operator by operator.

The pass rebuilds `main` binding by binding and keeps, for every tensor, the axis order in which it is stored. A
transpose moves no data, it changes what is known of the order; a convolution asks for NHWC; operators that work on any
order (elementwise, broadcasts, pooling, reductions, concatenation, slices, most reshapes) take their axes along; every
other operator gets the original order. So an operator that cannot follow costs one transpose, never the network.
Constants are transposed by numpy and become parameters of `main`, behind its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from crosstune.tuner.frontends.network import Weight
from crosstune.tuner.tvm_adapter import axes, constants
from crosstune.tuner.tvm_adapter.axes import Order, Shape

ANY_ORDER = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "bitwise_not",
        "ceil",
        "cos",
        "cosh",
        "erf",
        "exp",
        "floor",
        "isfinite",
        "isinf",
        "isnan",
        "log",
        "logical_not",
        "negative",
        "round",
        "rsqrt",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "trunc",
        "clip",
        "astype",
        "nn.relu",
        "nn.relu6",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.silu",
        "nn.leakyrelu",
        "nn.softplus",
        "nn.selu",
        "nn.dropout",
    ]
)
BROADCASTS = frozenset(
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "floor_divide",
        "power",
        "maximum",
        "minimum",
        "mod",
        "floor_mod",
        "equal",
        "not_equal",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "left_shift",
        "right_shift",
        "where",
    ]
)
REDUCTIONS = frozenset(["sum", "mean", "max", "min", "prod", "std", "variance"])
CONVOLUTIONS = {"nn.conv1d": ("NWC", "WIO"), "nn.conv2d": ("NHWC", "HWIO"), "nn.conv3d": ("NDHWC", "DHWIO")}
ORIGINAL_LAYOUTS = {"NCW": "NWC", "NCHW": "NHWC", "NCDHW": "NDHWC"}


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


@dataclass(slots=True)
class Layout:
    """The rewritten function and what became of it."""

    module: tvm.ir.IRModule
    weights: list[Weight]
    """Values of the parameters of `main` behind its inputs, in order."""
    convolutions: dict[str, int]
    """layout -> how many convolutions run in it"""
    transposes: int
    """Transposes of activations that move data."""
    fallbacks: dict[str, int]
    """operator -> how often it needed the original order back"""

    @property
    def name(self) -> str:
        """`NHWC`, `NCHW` or `mixed`: what the convolutions ended up with."""
        last = sum(count for layout, count in self.convolutions.items() if layout.endswith("C"))
        total = sum(self.convolutions.values())
        return "NCHW" if last == 0 else "NHWC" if last == total else "mixed"

    @property
    def note(self) -> str:
        """One sentence for people."""
        total = sum(self.convolutions.values())
        if not total:
            return "the network has no convolutions, so that their layout does not matter"
        parts = [f"{count} of {total} convolutions in {layout}" for layout, count in sorted(self.convolutions.items())]
        back = ", ".join(f"{name} ({count}x)" for name, count in sorted(self.fallbacks.items()))
        needed = f"; back to the original order for {back}" if back else ""
        return f"{', '.join(parts)}; {self.transposes} transposes of activations left{needed}"


def to_channels_last(module: tvm.ir.IRModule, weights: Mapping[str, Weight], inputs: int) -> Layout:
    """Rewrite `main` of `module`, whose parameters behind the first `inputs` are `weights` by parameter name."""
    return _Rewriter(module, weights, inputs).run()


def shape_of(expr: Any) -> Shape:
    return tuple(int(extent) for extent in expr.ty.shape.values)


def _dtype_of(ty: Any) -> np.dtype[Any]:
    return np.dtype(str(ty.dtype))


class _Rewriter:
    def __init__(self, module: tvm.ir.IRModule, weights: Mapping[str, Weight], inputs: int) -> None:
        self.module = module
        self.function = function = module["main"]
        self.builder = relax.BlockBuilder()
        self.inputs = list(function.params[:inputs])
        self.values: dict[Any, Value] = {}
        for parameter in self.inputs:
            shape = shape_of(parameter)
            self.values[parameter] = Placed(parameter, axes.identity(len(shape)), shape)
        for parameter in function.params[inputs:]:
            self.values[parameter] = weights[parameter.name]
        self.parameters: list[Any] = []
        self.weights: list[Weight] = []
        self.placed_weights: dict[tuple[int, Order | None], tuple[Weight, Any]] = {}
        self.convolutions: dict[str, int] = {}
        self.fallbacks: dict[str, int] = {}
        self.transposes = 0

    def run(self) -> Layout:
        with self.builder.function("main"):
            with self.builder.dataflow():
                for block in self.function.body.blocks:
                    for binding in block.bindings:
                        self.values[binding.var] = self._bind(binding.var, binding.value)
                output = self.builder.emit_output(self._output(self._resolve(self.function.body.body)))
            self.builder.emit_func_output(output, params=[*self.inputs, *self.parameters])
        return Layout(self.builder.get(), self.weights, self.convolutions, self.transposes, self.fallbacks)

    # From old expressions to values.

    def _resolve(self, expr: Any) -> Value:
        if isinstance(expr, tvm.ir.GenericConst):
            return Weight.of(expr.value.numpy())
        if isinstance(expr, relax.Tuple):
            return [self._resolve(entry) for entry in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._resolve(expr.tuple_value)[int(expr.index)]
        if isinstance(expr, tvm.ir.GlobalVar):
            return self._program(expr)
        return self.values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def _program(self, name: Any) -> Any:
        """The new name of a tensor program that the importer wrote itself."""
        if name not in self.values:
            self.values[name] = self.builder.add_func(self.module[name], str(name.name_hint))
        return self.values[name]

    def _bind(self, var: Any, value: Any) -> Value:
        if not isinstance(value, tvm.ir.Call):
            return self._resolve(value)
        name = str(value.op.name).removeprefix("relax.") if isinstance(value.op, tvm.ir.Op) else ""
        arguments = [self._resolve(argument) for argument in value.args]
        constant = self._fold(name, value, arguments, var)
        if constant is not None:
            return constant
        rule = RULES.get(name)
        if rule is None or (not hasattr(var.ty, "dtype") and name != "split"):
            return self._original(name, value, arguments)
        return rule(self, name, value, arguments)

    def _fold(self, name: str, call: Any, arguments: list[Value], var: Any) -> Value | None:
        flat = arguments[0] if name == "concat" else arguments
        tensors = [value for value in flat if isinstance(value, Placed | Weight)] if isinstance(flat, list) else []
        if not tensors or any(isinstance(value, Placed) for value in tensors):
            return None
        if name == "split":
            shapes = [shape_of_type(entry) for entry in var.ty.fields]
            axis = int(call.attrs.axis) % len(tensors[0].shape)
            starts = np.cumsum([0, *(shape[axis] for shape in shapes)])[:-1].tolist()
            return constants.split(tensors[0], axis, starts, shapes)
        if not isinstance(var.ty, relax.TensorType):
            return None
        shape = shape_of(var)
        if name == "strided_slice":
            return constants.sliced(tensors[0], *_slice_arguments(call, len(tensors[0].shape)), shape)
        return constants.folded(name, call.attrs, tensors, shape, _dtype_of(var.ty))

    # From values to new expressions.

    def parameter(self, weight: Weight, order: Order | None = None) -> Any:
        """An expression for a constant, transposed to `order`: a number in the code, else a parameter of `main`."""
        if weight.known and not weight.shape:
            return relax.const(weight.value(), weight.dtype.name)
        if order == axes.identity(len(weight.shape)):
            order = None
        key = (id(weight), order)
        if key not in self.placed_weights:
            stored = weight
            if order is not None:
                shape = axes.stored_shape(weight.shape, order)
                stored = Weight(shape, weight.dtype, lambda: np.transpose(weight.value(), order), weight.known)
            var = relax.Var(f"weight_{len(self.parameters)}", relax.TensorType(stored.shape, weight.dtype.name))
            self.parameters.append(var)
            self.weights.append(stored)
            self.placed_weights[key] = (weight, var)
        return self.placed_weights[key][1]

    def ordered(self, value: Value, order: Order) -> Any:
        """The expression of a tensor stored in `order`; transposes it when it is not."""
        if isinstance(value, Weight):
            return self.parameter(value, order)
        if value.order == order:
            return value.expr
        if order not in value.copies:
            moves = axes.moves(value.order, order)
            if axes.moves_nothing(axes.stored_shape(value.shape, value.order), moves):
                moved = relax.op.reshape(value.expr, axes.stored_shape(value.shape, order))
            else:
                self.transposes += 1
                moved = relax.op.permute_dims(value.expr, moves)
            value.copies[order] = self.builder.emit(moved)
        return value.copies[order]

    def original(self, value: Value) -> Any:
        if isinstance(value, list):
            return relax.Tuple([self.original(entry) for entry in value])
        if isinstance(value, Placed | Weight):
            return self.ordered(value, axes.identity(len(value.shape)))
        return value

    def place(self, expr: Any, order: Order | None = None) -> Value:
        """Emit an expression whose result is stored in `order`."""
        var = self.builder.emit(expr)
        if isinstance(var.ty, relax.TupleType):
            return [self.place(relax.TupleGetItem(var, index), order) for index in range(len(var.ty.fields))]
        if not isinstance(var.ty, relax.TensorType):
            return var
        stored = shape_of(var)
        order = axes.identity(len(stored)) if order is None else order
        shape = tuple(stored[order.index(axis)] for axis in range(len(stored)))
        return Placed(var, order, shape)

    def _original(self, name: str, call: Any, arguments: list[Value]) -> Value:
        """The operator as it was, on tensors in their original order."""
        changed = any(isinstance(v, Placed) and v.order != axes.identity(len(v.shape)) for v in _flat(arguments))
        if changed:
            self.fallbacks[name] = self.fallbacks.get(name, 0) + 1
        if name in CONVOLUTIONS or name.startswith("nn.conv"):
            layout = str(call.attrs.data_layout)
            self.convolutions[layout] = self.convolutions.get(layout, 0) + 1
        return self.place(tvm.ir.Call(call.op, [self.original(v) for v in arguments], call.attrs, call.ty_args))

    def _output(self, value: Value) -> Any:
        return self.original(value)

    def common_order(self, values: Sequence[Value], rank: int) -> Order:
        """The order in which most elements of the activations of full rank are stored."""
        elements: dict[Order, int] = {}
        for value in values:
            if isinstance(value, Placed) and len(value.shape) == rank:
                elements[value.order] = elements.get(value.order, 0) + math.prod(value.shape)
        if not elements:
            return axes.identity(rank)
        return max(elements, key=lambda order: (elements[order], order != axes.identity(rank)))

    # Rules: one for each family of operators.

    def elementwise(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value, *rest = arguments
        if not isinstance(value, Placed) or any(isinstance(entry, Placed) for entry in rest):
            return self._original(name, call, arguments)
        rest = [self.original(entry) for entry in rest]
        return self.place(tvm.ir.Call(call.op, [value.expr, *rest], call.attrs, call.ty_args), value.order)

    def broadcast(self, name: str, call: Any, arguments: list[Value]) -> Value:
        rank = max(len(value.shape) for value in arguments)
        order = self.common_order(arguments, rank)
        full = any(isinstance(value, Placed) and len(value.shape) == rank for value in arguments)
        operands = []
        for value in arguments:
            if isinstance(value, Weight):
                weight = constants.aligned(value, rank, order) if full else value
                operands.append(self.parameter(self._interned(value, weight, rank, order)))
            elif len(value.shape) < rank and order != axes.identity(rank):
                padded = (1,) * (rank - len(value.shape)) + value.shape
                reshaped = self.place(relax.op.reshape(self.original(value), padded))
                operands.append(self.ordered(reshaped, order))
            else:
                operands.append(
                    self.ordered(value, order if len(value.shape) == rank else axes.identity(len(value.shape)))
                )
        return self.place(tvm.ir.Call(call.op, operands, call.attrs, call.ty_args), order)

    def _interned(self, source: Weight, made: Weight, rank: int, order: Order) -> Weight:
        """One object for each distinct view of a constant, so that it becomes one parameter."""
        key = (id(source), (rank, *order, -1))
        return self.placed_weights.setdefault(key, (source, made))[1]

    def convolution(self, name: str, call: Any, arguments: list[Value]) -> Value:
        data, weight = arguments
        rank, attrs = len(data.shape), call.attrs
        data_layout, kernel_layout = CONVOLUTIONS[name]
        if ORIGINAL_LAYOUTS.get(str(attrs.data_layout)) != data_layout or (rank != 4 and int(attrs.groups) != 1):
            return self._original(name, call, arguments)
        order = axes.channels_last(rank)
        kernel_order = (*range(2, rank), 1, 0)
        self.convolutions[data_layout] = self.convolutions.get(data_layout, 0) + 1
        function = getattr(relax.op.nn, name.removeprefix("nn."))
        result = function(
            self.ordered(data, order),
            self.ordered(weight, kernel_order),
            strides=_ints(attrs.strides),
            padding=_ints(attrs.padding),
            dilation=_ints(attrs.dilation),
            groups=int(attrs.groups),
            data_layout=data_layout,
            kernel_layout=kernel_layout,
            out_layout=data_layout,
        )
        return self.place(result, order)

    def pooling(self, name: str, call: Any, arguments: list[Value]) -> Value:
        (value,) = arguments
        rank = len(value.shape)
        last = ORIGINAL_LAYOUTS.get(str(call.attrs.layout))
        if last is None or value.order == axes.identity(rank):
            return self._original(name, call, arguments)
        function = getattr(relax.op.nn, name.removeprefix("nn."))
        if "adaptive" in name:
            if value.order != axes.channels_last(rank):
                return self._original(name, call, arguments)
            return self.place(function(value.expr, _ints(call.attrs.output_size), layout=last), value.order)
        if value.order == axes.channels_last(rank):
            return self.place(function(value.expr, **_window(call.attrs), layout=last), value.order)
        if value.order[:2] != (0, 1):
            return self._original(name, call, arguments)
        # Any order of the spatial axes: the window is turned with them.
        space = [axis - 2 for axis in value.order[2:]]
        result = function(value.expr, **_window(call.attrs, space), layout=str(call.attrs.layout))
        return self.place(result, value.order)

    def reduction(self, name: str, call: Any, arguments: list[Value]) -> Value:
        (value,) = arguments
        rank = len(value.shape)
        given = call.attrs.axis
        reduced = set(range(rank)) if given is None else {int(axis) % rank for axis in given}
        places = sorted(value.order.index(axis) for axis in reduced)
        keep = bool(call.attrs.keepdims)
        order = value.order if keep else axes.without(value.order, reduced)
        return self.place(getattr(relax.op, name)(value.expr, places, keep), order)

    def along_axis(self, name: str, call: Any, arguments: list[Value]) -> Value:
        (value,) = arguments
        axis = value.order.index(int(call.attrs.axis) % len(value.shape))
        return self.place(getattr(relax.op.nn, name.removeprefix("nn."))(value.expr, axis), value.order)

    def layer_norm(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value, *parameters = arguments
        normalised = [int(axis) % len(value.shape) for axis in call.attrs.axes]
        if len(normalised) != 1:
            return self._original(name, call, arguments)
        place = value.order.index(normalised[0])
        given = [self.original(parameter) for parameter in parameters]
        attrs = call.attrs
        result = relax.op.nn.layer_norm(
            value.expr,
            *given,
            axes=[place],
            epsilon=float(attrs.epsilon),
            center=bool(attrs.center),
            scale=bool(attrs.scale),
        )
        return self.place(result, value.order)

    def prelu(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value, slope = arguments
        axis = value.order.index(int(call.attrs.axis) % len(value.shape))
        return self.place(relax.op.nn.prelu(value.expr, self.original(slope), axis), value.order)

    def concat(self, name: str, call: Any, arguments: list[Value]) -> Value:
        parts = arguments[0]
        rank = len(parts[0].shape)
        order = self.common_order(parts, rank)
        axis = order.index(int(call.attrs.axis) % rank)
        return self.place(relax.op.concat([self.ordered(part, order) for part in parts], axis), order)

    def split(self, name: str, call: Any, arguments: list[Value]) -> Value:
        (value,) = arguments
        attrs = call.attrs
        given = attrs.indices_or_sections
        sections = [int(index) for index in given] if hasattr(given, "__len__") else int(given)
        axis = value.order.index(int(attrs.axis) % len(value.shape))
        return self.place(relax.op.split(value.expr, sections, axis), value.order)

    def strided_slice(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value = arguments[0]
        sliced, begin, end, strides = _slice_arguments(call, len(value.shape))
        places = [value.order.index(axis) for axis in sliced]
        return self.place(relax.op.strided_slice(value.expr, places, begin, end, strides), value.order)

    def pad(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value = arguments[0]
        widths = _ints(call.attrs.pad_width)
        turned = [width for axis in value.order for width in widths[2 * axis : 2 * axis + 2]]
        mode = str(call.attrs.pad_mode)
        if mode != "constant" and value.order not in (
            axes.identity(len(value.shape)),
            axes.channels_last(len(value.shape)),
        ):
            return self._original(name, call, arguments)
        return self.place(relax.op.nn.pad(value.expr, turned, mode, float(call.attrs.pad_value)), value.order)

    def resize(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value, size = arguments
        attrs = call.attrs
        if value.order != axes.channels_last(4) or str(attrs.layout) != "NCHW":
            return self._original(name, call, arguments)
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
        return self.place(result, value.order)

    def permute(self, name: str, call: Any, arguments: list[Value]) -> Value:
        (value,) = arguments
        rank = len(value.shape)
        given = call.attrs.axes
        turned = tuple(reversed(range(rank))) if given is None else tuple(int(axis) % rank for axis in given)
        shape = tuple(value.shape[axis] for axis in turned)
        return Placed(value.expr, axes.transposed(value.order, turned), shape)

    def reshape(self, name: str, call: Any, arguments: list[Value]) -> Value:
        value = arguments[0]
        after = shape_of_type(self.builder.normalize(self._reshaped(call, value)).ty)
        if value.order == axes.identity(len(value.shape)):
            return self._as_shape(value.expr, after, axes.identity(len(after)))
        groups = axes.reshape_groups(value.shape, after)
        order = axes.order_for_reshape(value.shape, value.order, groups)
        result = axes.order_after_reshape(value.shape, order, groups)
        return self._as_shape(self.ordered(value, order), axes.stored_shape(after, result), result)

    def _reshaped(self, call: Any, value: Placed) -> Any:
        """The call on a stand-in of the original shape, to learn the shape of its result."""
        stand_in = relax.Var("stand_in", relax.TensorType(value.shape, value.expr.ty.dtype))
        return tvm.ir.Call(call.op, [stand_in, *call.args[1:]], call.attrs, call.ty_args)

    def _as_shape(self, expr: Any, stored: Shape, order: Order) -> Value:
        if shape_of(expr) == stored:
            return Placed(expr, order, tuple(stored[order.index(axis)] for axis in range(len(stored))))
        return self.place(relax.op.reshape(expr, stored), order)


def shape_of_type(ty: Any) -> Shape:
    return tuple(int(extent) for extent in ty.shape.values)


def _flat(values: Sequence[Value]) -> list[Value]:
    return [entry for value in values for entry in (_flat(value) if isinstance(value, list) else [value])]


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


def _slice_arguments(call: Any, rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """axes, begin, end, strides of a strided_slice."""
    sliced, begin, end = (_ints(_fields(argument)) for argument in call.args[1:4])
    strides = _ints(_fields(call.args[4])) if len(call.args) > 4 else [1] * len(sliced)
    return [axis % rank for axis in sliced], begin, end, strides


def _fields(expr: Any) -> Any:
    return expr.fields if isinstance(expr, relax.Tuple) else expr.values


Rule = Callable[[_Rewriter, str, Any, list[Value]], Value]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ANY_ORDER, _Rewriter.elementwise),
    **dict.fromkeys(BROADCASTS, _Rewriter.broadcast),
    **dict.fromkeys(REDUCTIONS, _Rewriter.reduction),
    **dict.fromkeys(CONVOLUTIONS, _Rewriter.convolution),
    **dict.fromkeys(
        [f"nn.{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg") for rank in (1, 2, 3)], _Rewriter.pooling
    ),
    "nn.softmax": _Rewriter.along_axis,
    "nn.log_softmax": _Rewriter.along_axis,
    "nn.layer_norm": _Rewriter.layer_norm,
    "nn.prelu": _Rewriter.prelu,
    "nn.pad": _Rewriter.pad,
    "concat": _Rewriter.concat,
    "split": _Rewriter.split,
    "strided_slice": _Rewriter.strided_slice,
    "image.resize2d": _Rewriter.resize,
    "permute_dims": _Rewriter.permute,
    "reshape": _Rewriter.reshape,
    "expand_dims": _Rewriter.reshape,
    "squeeze": _Rewriter.reshape,
    "flatten": _Rewriter.reshape,
}
