"""Child side: time two fixed kernels, always the same for a target, to see whether the device is left alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter import kernels, timing

REPEATS = 10
LEAST_S = 0.01
LOOPS = 300
"""Parallel loops that are counted beside one matrix product.

Where a virtual machine's two processors share a core for a while, the product takes twice as long. Where they lie on
different caches, it takes as long as before, but starting and ending a loop takes twice as long, and networks suffer:
on a 2-processor AMD EPYC 0.49 ms and 0.75 us became 0.52 ms and 1.55 us, and a SqueezeNet's 3.9 ms 5.4. So many loops
weigh half as much as the product.
"""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a matrix product and LOOPS parallel loops (medians over about 10 ms each); answers latency_s.

    The kernels are compiled at the first call. payload: target
    """
    spec = TargetSpec.from_json(payload["target"])
    timing.start_threads(spec.cores)
    return {"latency_s": reference_s(spec)}


def reference_s(spec: TargetSpec) -> float:
    """See `run`; the threads have been started."""
    product_s, loop_s = (timing.time_steadily(kernel, arrays, REPEATS, LEAST_S) for kernel, arrays in _prepared(spec))
    return product_s + LOOPS * loop_s


@lru_cache(maxsize=1)
def _prepared(spec: TargetSpec) -> list[tuple[Any, list[Any]]]:
    fixed = [kernels.reference_matmul(spec), kernels.empty_parallel_loop(spec)]
    return [(each.kernel, timing.timing_arrays(each.args, 1, seed=1)) for each in fixed]
