"""Our own layout pass on Relax: convolutions in NHWC with HWIO weights, decided operator by operator.

The pass rebuilds `main` binding by binding and keeps, for every tensor, the axis order in which it is stored. A
transpose moves no data, it changes what is known of the order; a convolution asks for NHWC; operators that work on any
order (elementwise, broadcasts, pooling, reductions, concatenation, slices, most reshapes) take their axes along; every
other operator gets the original order. So an operator that cannot follow costs one transpose, never the network.
Constants are transposed by numpy and become parameters of `main`, behind its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from crosstune.tuner.frontends.network import Weight
from crosstune.tuner.tvm_adapter import axes, constants
from crosstune.tuner.tvm_adapter.axes import Order
from crosstune.tuner.tvm_adapter.layout_rules import CONVOLUTIONS, RULES, slice_arguments
from crosstune.tuner.tvm_adapter.placed import Placed, Value, shape_of, shape_of_type


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
        left = f"{self.transposes} transpose{'s' if self.transposes != 1 else ''} of activations left"
        return f"{', '.join(parts)}; {left}{needed}"


def to_channels_last(module: tvm.ir.IRModule, weights: Mapping[str, Weight], inputs: int) -> Layout:
    """Rewrite `main` of `module`, whose parameters behind the first `inputs` are `weights` by parameter name."""
    return _Rewriter(module, weights, inputs).run()


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
        self.views: dict[tuple[int, int, Order], tuple[Weight, Weight]] = {}
        self.convolutions: dict[str, int] = {}
        self.fallbacks: dict[str, int] = {}
        self.transposes = 0

    def run(self) -> Layout:
        with self.builder.function("main"):
            with self.builder.dataflow():
                for block in self.function.body.blocks:
                    for binding in block.bindings:
                        self.values[binding.var] = self._bind(binding.var, binding.value)
                output = self.builder.emit_output(self.original(self._resolve(self.function.body.body)))
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
        if rule is None or not any(isinstance(argument, Placed) for argument in _flat(arguments)):
            return self.fall_back(name, value, arguments)
        return rule(self, name, value, arguments)

    def _fold(self, name: str, call: Any, arguments: list[Value], var: Any) -> Value | None:
        """The result when all operands are constants and numpy can compute it."""
        operands = _flat(arguments)
        tensors = [value for value in operands if isinstance(value, Weight)]
        if not tensors or any(isinstance(value, Placed) for value in operands):
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
            return constants.sliced(tensors[0], *slice_arguments(call, len(tensors[0].shape)), shape)
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

    def fall_back(self, name: str, call: Any, arguments: list[Value]) -> Value:
        """The operator as it was, on tensors in their original order."""
        changed = any(isinstance(v, Placed) and v.order != axes.identity(len(v.shape)) for v in _flat(arguments))
        if changed:
            self.fallbacks[name] = self.fallbacks.get(name, 0) + 1
        if name in CONVOLUTIONS or name.startswith("nn.conv"):
            layout = str(call.attrs.data_layout)
            self.convolutions[layout] = self.convolutions.get(layout, 0) + 1
        return self.place(tvm.ir.Call(call.op, [self.original(v) for v in arguments], call.attrs, call.ty_args))

    def interned(self, source: Weight, made: Weight, rank: int, order: Order) -> Weight:
        """One object for each distinct view of a constant, so that it becomes one parameter."""
        return self.views.setdefault((id(source), rank, order), (source, made))[1]


def _flat(values: Sequence[Value]) -> list[Value]:
    return [entry for value in values for entry in (_flat(value) if isinstance(value, list) else [value])]
