"""Child side: time one fixed kernel, always the same for a target, to see whether the device is left alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter import kernels, timing

REPEATS = 10
LEAST_S = 0.01


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Median seconds per call over about 10 ms; answers latency_s. The kernel is compiled at the first call.

    payload: target
    """
    spec = TargetSpec.from_json(payload["target"])
    timing.start_threads(spec.cores)
    fixed, arrays = _prepared(spec)
    return {"latency_s": timing.time_steadily(fixed.kernel, arrays, REPEATS, LEAST_S), "flops": fixed.flops}


@lru_cache(maxsize=1)
def _prepared(spec: TargetSpec) -> tuple[kernels.FixedKernel, list[Any]]:
    fixed = kernels.reference_matmul(spec)
    return fixed, timing.timing_arrays(fixed.args, 1, seed=1)
