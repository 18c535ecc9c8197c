"""Child side: compile one candidate and keep its machine code in this process for the calls that follow."""

from __future__ import annotations

import time
from typing import Any

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.compile import BuildFailed, Kernel, build_kernel

_built: dict[str, Kernel] = {}
"""Under `kernel`: what this child has compiled. A child serves one candidate."""


class NothingBuilt(RuntimeError):
    """A measurement was asked of a child that has compiled nothing."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Compile; answers build_s, timings_s, module_sha256, or invalidity and detail.

    payload: module (TVM's JSON of the workload), trace (JSON; None: the default schedule), unscheduled, target
    """
    started = time.perf_counter()
    spec = TargetSpec.from_json(payload["target"])
    try:
        kernel = build_kernel(payload["module"], payload["trace"], payload["unscheduled"], spec)
    except BuildFailed as error:
        return {"invalidity": error.invalidity.value, "detail": error.detail}
    _built["kernel"] = kernel
    return {
        "build_s": time.perf_counter() - started,
        "timings_s": kernel.timings_s,
        "module_sha256": kernel.module_sha256,
    }


def built_kernel() -> Kernel:
    """The kernel that this child has compiled."""
    if "kernel" not in _built:
        raise NothingBuilt("this child has compiled no kernel")
    return _built["kernel"]
