"""From a checked network to fused PrimFuncs: the one pipeline that import and deployment share.

Every record depends on it: a change of what comes out bumps PIPELINE_VERSION.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from crosstune.tuner.contracts import CrosstuneError, NetworkRefused
from crosstune.tuner.frontends.graph_key import graph_key
from crosstune.tuner.frontends.network import Array, Network, TensorSpec, Weight
from crosstune.tuner.frontends.onnx import Shapes, read_network
from crosstune.tuner.frontends.operators import counts
from crosstune.tuner.tvm_adapter.converters import Importer
from crosstune.tuner.tvm_adapter.layout import Layout, to_channels_last

PIPELINE_VERSION = 1
FREE = ("relax.reshape",)
"""Left as operators of the graph: the virtual machine makes them a view of the same memory."""


@dataclass(slots=True)
class PreparedNetwork:
    """A network as one fused IRModule: `main(*inputs, *weights)` calls PrimFuncs; weights have no values yet."""

    module: tvm.ir.IRModule
    network: Network
    weights: list[Weight]
    calls: dict[str, int]
    """name of each PrimFunc -> how often one inference calls it"""
    layout: str
    layout_note: str
    graph_key: str
    operators: dict[str, int]
    """ONNX operator -> count, after simplification"""

    @property
    def inputs(self) -> list[TensorSpec]:
        return self.network.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        return self.network.outputs

    @property
    def synthetic_weights(self) -> bool:
        return self.network.synthetic_weights

    def weight_values(self) -> list[Array]:
        """The values of all weights, in the order of `main`'s parameters behind its inputs."""
        return [weight.value() for weight in self.weights]

    def bound(self, module: tvm.ir.IRModule | None = None) -> tvm.ir.IRModule:
        """`module` (this one's by default, or a scheduled version of it) with the weights as constants of `main`."""
        module = self.module if module is None else module
        parameters = module["main"].params[len(self.inputs) :]
        values = {
            parameter.name: tvm.runtime.tensor(weight.value())
            for parameter, weight in zip(parameters, self.weights, strict=True)
        }
        return relax.transform.BindParams("main", values)(module)


def prepare(model_bytes: bytes, shapes: Shapes, seed: int = 0) -> PreparedNetwork:
    """Read, check, lay out and fuse the network in `model_bytes`; import and deployment both start here.

    shapes: sizes of inputs that the file leaves open; seed: for missing weights. Raises NetworkRefused.
    """
    return prepare_network(read_network(model_bytes, shapes, seed))


def prepare_network(network: Network) -> PreparedNetwork:
    """As `prepare`, from a network that the front end has read."""
    layout = lay_out(network)
    module = fuse(layout.module)
    return PreparedNetwork(
        module=module,
        network=network,
        weights=layout.weights,
        calls=_calls(module),
        layout=layout.name,
        layout_note=layout.note,
        graph_key=graph_key(network),
        operators=counts(network),
    )


def lay_out(network: Network) -> Layout:
    """The network in Relax, in the layouts of `to_channels_last`."""
    module, names = to_relax(network)
    parameters = module["main"].params[len(network.inputs) :]
    weights = {var.name: network.constants[name] for var, name in zip(parameters, names, strict=True)}
    return to_channels_last(module, weights, len(network.inputs))


def to_relax(network: Network) -> tuple[tvm.ir.IRModule, list[str]]:
    """The network in Relax as TVM's converter writes it; `main` takes the inputs, then the named large constants."""
    model = network.to_model(with_values=False)
    names = [value.name for value in model.graph.input][len(network.inputs) :]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        try:
            module = Importer().from_onnx(model.graph, network.opset)
        except Exception as error:
            raise _refused(error, network) from error
    return relax.transform.ConvertToDataflow()(module), names


def _refused(error: Exception, network: Network) -> NetworkRefused:
    text = str(error).strip().splitlines()
    detail = next((line for line in reversed(text) if line.strip()), type(error).__name__)
    return NetworkRefused(
        "unsupported_operator",
        f"the compiler cannot convert the network: {detail.strip()[:400]}",
        {"operators": sorted(counts(network))},
    )


def fuse(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Legalise, fuse and clean; raises NetworkRefused when an operator has no tensor program."""
    passes = [
        relax.transform.EliminateCommonSubexpr(),
        relax.transform.DeadCodeElimination(),
        relax.transform.LegalizeOps(skip_ops=list(FREE)),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    try:
        module = tvm.transform.Sequential(passes)(module)
    except CrosstuneError:
        raise
    except Exception as error:
        detail = str(error).strip().splitlines()[-1][:400]
        raise NetworkRefused("unsupported_operator", f"the compiler cannot lower the network: {detail}") from error
    _require_lowered(module)
    return module


def _bound_calls(module: tvm.ir.IRModule) -> list[Any]:
    return [
        binding.value
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, tvm.ir.Call)
    ]


def _require_lowered(module: tvm.ir.IRModule) -> None:
    left = {str(call.op.name) for call in _bound_calls(module) if isinstance(call.op, tvm.ir.Op)}
    left -= {"relax.call_tir", *FREE}
    if left:
        names = sorted(name.removeprefix("relax.") for name in left)
        raise NetworkRefused(
            "unsupported_operator",
            f"the compiler has no tensor program for: {', '.join(names)}",
            {"operators": names},
        )


def _calls(module: tvm.ir.IRModule) -> dict[str, int]:
    found: dict[str, int] = {}
    for call in _bound_calls(module):
        if str(call.op.name) == "relax.call_tir":
            name = str(call.args[0].name_hint)
            found[name] = found.get(name, 0) + 1
    return found


def prim_funcs(module: tvm.ir.IRModule) -> dict[str, Any]:
    """The tensor programs of a fused module by global name."""
    return {
        str(variable.name_hint): function
        for variable, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
