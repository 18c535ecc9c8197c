"""A fused network and its schedules -> a library that TVM's runtime can run, with the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm.relax
from tvm.ir import IRModule
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.tirx import PrimFunc

from crosstune.tuner.contracts import CrosstuneError, PinnedSchedule, Workload
from crosstune.tuner.tvm_adapter.default_schedule import default_trace
from crosstune.tuner.tvm_adapter.graph import prim_funcs
from crosstune.tuner.tvm_adapter.schedule import ReplayFailed, scheduled_module
from crosstune.tuner.tvm_adapter.vm_lowering import lower
from crosstune.tuner.tvm_adapter.workload import workload_of
from crosstune.tuner.weights_file import Array


class ScheduleUnusable(CrosstuneError):
    """A pinned schedule that does not make a program of its workload (any more)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the network: its name in the library, its workload, the schedule it got (None: the default)."""

    function: str
    workload: Workload
    pinned: PinnedSchedule | None


@dataclass(frozen=True, slots=True)
class BuiltNetwork:
    executable: Any
    parameters: tuple[str, ...]
    """What `main` takes after the network's inputs: the weights, then `constants`."""
    constants: dict[str, Array]
    kernels: tuple[Kernel, ...]


def build(module: IRModule, input_count: int, pinned: Mapping[str, PinnedSchedule], target: Any) -> BuiltNetwork:
    """Schedule every kernel (`pinned` by the workload's sha256, else the default) and compile.

    `module`: a fused network whose `main` takes `input_count` inputs, then its weights; it is left as it is.
    Raises ScheduleUnusable, naming the workload, when a pinned trace cannot be replayed.
    """
    kernels, programs = [], {}
    for name, function in prim_funcs(module).items():
        workload = workload_of(function, name)
        kernel = Kernel(name, workload, pinned.get(workload.sha256))
        programs[name] = _program(function, kernel, target)
        kernels.append(kernel)
    lowered = lower(put_back(module, programs), input_count)
    with target:
        executable = tvm.relax.build(lowered.module, target, relax_pipeline=None)
    return BuiltNetwork(executable, lowered.parameters, lowered.constants, tuple(kernels))


def put_back(module: IRModule, programs: Mapping[str, IRModule]) -> IRModule:
    """A copy of `module` in which each named PrimFunc is the `main` of its program, marked as scheduled."""
    result = IRModule(dict(module.functions.items()), attrs=module.attrs)
    for name, program in programs.items():
        function = program["main"].without_attr("global_symbol").with_attr("tirx.is_scheduled", True)
        result.update_func(module.get_global_var(name), function)
    return result


def _program(function: PrimFunc, kernel: Kernel, target: Any) -> IRModule:
    """The scheduled module of one kernel; called in the same way as the unscheduled `function`."""
    module_json = kernel.workload.module
    trace = kernel.pinned.trace if kernel.pinned else default_trace(module_json, target)
    try:
        program = scheduled_module(module_json, trace, target)
    except ReplayFailed as error:
        raise ScheduleUnusable(
            f"the schedule of {kernel.workload.name} (workload {kernel.workload.sha256[:12]}) is unusable: {error}"
        ) from error
    if (found := signature(program["main"])) != (wanted := signature(function)):
        raise ScheduleUnusable(f"{kernel.workload.name} as scheduled takes {found} where the network passes {wanted}")
    return program


def signature(function: PrimFunc) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of each argument."""
    return [(str(each.dtype), tuple(int(size) for size in each.shape)) for each in ArgInfo.from_prim_func(function)]


def export(built: BuiltNetwork, library: Path) -> None:
    """Link the network into a shared library (needs a C compiler)."""
    built.executable.export_library(str(library))


def llvm_features(target: Any) -> list[str]:
    """LLVM's names of the processor features that code for `target` may use."""
    return [str(feature) for feature in tvm.target.codegen.llvm_get_cpu_features(target)]
