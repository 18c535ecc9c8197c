"""From a fused, scheduled network to what TVM's virtual machine runs: an explicit list of passes.

Left out against TVM's own lists: constant folding (it compiles each folded operator with LLVM, 22 s a network; the
front end has folded with numpy), legalising of what is left (reshapes, which become views), and CUDA graphs. Added:
no weight is part of the library (see `weights_file`), and none is checked in each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, GenericConst, IRModule
from tvm.relax import transform

from crosstune.tuner.weights_file import Array

MAIN = "main"
CHECKS = frozenset({"vm.builtin.check_tensor_info", "vm.builtin.match_shape"})


@dataclass(frozen=True, slots=True)
class Lowered:
    """`parameters` names what `main` takes after the network's inputs: its weights, then `constants` in their order."""

    module: IRModule
    parameters: tuple[str, ...]
    constants: dict[str, Array]


def lower(module: IRModule, input_count: int) -> Lowered:
    """The module for the virtual machine's code generator; `main` takes `input_count` inputs, then weights.

    All intermediate buffers of a call are planned statically, so that a call asks the allocator's pool for a few
    storages only. Constants that are left in `main` become parameters behind the weights.
    """
    planned = tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
        ]
    )(module)
    main = _without_checks(planned[MAIN], input_count)
    lifter = _ConstantsToParameters(planned)
    main = lifter.lifted(main)
    planned.update_func(planned.get_global_var(MAIN), main)
    names = tuple(str(parameter.name) for parameter in main.params[input_count:])
    return Lowered(transform.AttachGlobalSymbol()(planned), names, lifter.values)


def _without_checks(function: relax.Function, input_count: int) -> relax.Function:
    """Drop VMShapeLower's checks of the weights: two calls per weight and inference, of what never changes."""
    weights = list(function.params[input_count:])

    def unneeded(binding: Any) -> bool:
        call = binding.value
        if not (isinstance(call, Call) and isinstance(call.op, relax.ExternFunc) and call.args):
            return False
        return str(call.op.global_symbol) in CHECKS and any(call.args[0].same_as(weight) for weight in weights)

    blocks = [
        relax.BindingBlock([binding for binding in block.bindings if not unneeded(binding)])
        for block in function.body.blocks
    ]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


@relax.expr_functor.mutator
class _ConstantsToParameters(relax.PyExprMutator):  # type: ignore[misc]
    """Replaces each tensor constant of a function by a new parameter; one parameter per distinct tensor."""

    def __init__(self, module: IRModule) -> None:
        super().__init__(module)
        self.values: dict[str, Array] = {}
        self.variables: dict[Any, Any] = {}

    def lifted(self, function: relax.Function) -> relax.Function:
        body = self.visit_expr(function.body)
        parameters = [*function.params, *self.variables.values()]
        return relax.Function(parameters, body, function.ret_ty, function.is_pure, function.attrs)

    def visit_generic_const_(self, constant: GenericConst) -> Any:
        if not isinstance(constant.value, tvm.runtime.Tensor):
            return constant
        array = np.from_dlpack(constant.value)
        key = (array.ctypes.data, array.dtype.str, array.shape)
        if key not in self.variables:
            name = f"constant_{len(self.variables)}"
            self.values[name] = array  # a view, so the address stays taken
            self.variables[key] = relax.Var(name, constant.ty)
        return self.variables[key]
