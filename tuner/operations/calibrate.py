"""Child side: measure what this machine can do under a target: arithmetic peak, memory bandwidth, parallel loops."""

from __future__ import annotations

from typing import Any

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.operations.reference_kernel import reference_s
from crosstune.tuner.tvm_adapter import kernels, timing

TILES_PER_CORE = 200
REPEATS = 10
LEAST_S, TRIES = 0.6, 6
"""In all: the same peak kernel has been seen at 100 and at 189 GFLOP/s within an hour."""
LEAST_TRIAD_BYTES = 128 * 2**20
TRIAD_CACHES = 4
"""The arrays are this many times the last-level cache, so that they stream from memory."""


def run(payload: dict[str, Any]) -> dict[str, float]:
    """Measure for a second or two, alone on the device.

    payload: target, vector_bits, last_cache_bytes
    Answers peak_flops_per_s (float32), memory_bytes_per_s (streaming), parallel_loop_s, reference_kernels_s, each at
    best: something else may run beside some of the tries.
    """
    spec = TargetSpec.from_json(payload["target"])
    timing.start_threads(spec.cores)
    peak = kernels.multiply_add_tiles(spec, payload["vector_bits"] // 8, TILES_PER_CORE)
    elements = max(LEAST_TRIAD_BYTES, TRIAD_CACHES * payload["last_cache_bytes"]) // 12
    elements -= elements % (16 * spec.cores)
    stream = kernels.triad(spec, elements)
    return {
        "peak_flops_per_s": peak.flops / _seconds(peak),
        "memory_bytes_per_s": stream.bytes_moved / _seconds(stream),
        "parallel_loop_s": _seconds(kernels.empty_parallel_loop(spec)),
        "reference_kernels_s": min(reference_s(spec) for _ in range(REPEATS)),
    }


def _seconds(fixed: kernels.FixedKernel) -> float:
    arrays = timing.timing_arrays(fixed.args, 1, seed=1)
    return min(timing.time_steadily(fixed.kernel, arrays, REPEATS, LEAST_S / TRIES) for _ in range(TRIES))
