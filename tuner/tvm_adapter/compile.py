"""Compile one workload under one schedule, in this process: LLVM straight into memory, no file and no link step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.ir import IRModule

from crosstune.tuner.contracts import CrosstuneError, Invalidity, TargetSpec, TraceJson
from crosstune.tuner.tvm_adapter.default_schedule import default_module
from crosstune.tuner.tvm_adapter.schedule import ReplayFailed, load_module, module_sha256, scheduled_module
from crosstune.tuner.tvm_adapter.target import tvm_target

ENTRY = "main"
WITHOUT_CHECKS = {"tirx.disable_assert": True}
"""Leaves out the checks of arguments, ahead of all loops: 40 ms of compiling for each candidate. Ours are right."""


class BuildFailed(CrosstuneError):
    """A candidate that cannot be compiled; `invalidity` is REPLAY or COMPILE."""

    def __init__(self, invalidity: Invalidity, detail: str) -> None:
        super().__init__(detail)
        self.invalidity, self.detail = invalidity, detail


@dataclass(frozen=True, slots=True)
class Kernel:
    """Machine code of one workload; `library` keeps it alive."""

    library: Any
    function: Any
    module_sha256: str
    timings_s: dict[str, float]
    """schedule, lower_and_generate, emit"""


def build_kernel(module_json: str, trace: TraceJson | None, unscheduled: bool, spec: TargetSpec) -> Kernel:
    """Compile a workload: under `trace`, or under the default schedule (None), or as the plain loops it is written in.

    Starts no thread. Raises BuildFailed: REPLAY where the trace has no program, COMPILE where TVM refuses it.
    """
    target = tvm_target(spec)
    started = time.perf_counter()
    try:
        module = _module(module_json, trace, unscheduled, target)
    except ReplayFailed as error:
        raise BuildFailed(Invalidity.REPLAY, str(error)) from error
    scheduled = time.perf_counter()
    return compile_module(module, target, {"schedule": scheduled - started})


def compile_module(module: IRModule, target: Any, timings_s: dict[str, float] | None = None) -> Kernel:
    """Machine code of the module's `main`; BuildFailed(COMPILE) with TVM's last words when there is none.

    The kernel trusts its arguments: other shapes or dtypes than the module's end the process.
    """
    started = time.perf_counter()
    try:
        with tvm.transform.PassContext(config=WITHOUT_CHECKS):
            library = tvm.compile(module, target).mod
        generated = time.perf_counter()
        function = library[ENTRY]  # LLVM emits the machine code only now
    except MemoryError:
        raise
    except Exception as error:
        raise BuildFailed(Invalidity.COMPILE, _last_line(error)) from error
    own_s = {"lower_and_generate": generated - started, "emit": time.perf_counter() - generated}
    return Kernel(library, function, module_sha256(module), {**(timings_s or {}), **own_s})


def _module(module_json: str, trace: TraceJson | None, unscheduled: bool, target: Any) -> IRModule:
    if unscheduled:
        return load_module(module_json)
    if trace is None:
        return default_module(module_json, target)
    return scheduled_module(module_json, trace, target)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:500] if lines else ''}"
