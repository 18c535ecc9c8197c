"""The least time that a program can take on a target: all its arithmetic at peak rate, or all its arguments streamed.

(Williams et al., "Roofline: an insightful visual performance model", 2009; the slower of both limits.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.tokens import workload as workload_tokens
from crosstune.cost_model.tokens.hardware import HardwareToken, attribute
from crosstune.cost_model.tokens.workload import WorkloadToken

FLOAT_OPERATIONS = slice(0, 7)
"""Columns of the summary that count them: multiply-add, add, multiply, divide, compare, functions."""
ELEMENT_BYTES = 4.0
"""Tokens do not tell data types; nearly everything is float32."""


def roofline_s(hardware: HardwareToken, workload: WorkloadToken, summary: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) seconds for programs with `summary` (n, VECTOR_LENGTH); NaN where the hardware's rates are not known or the
    program was not lowered."""
    peak, bandwidth = attribute(hardware, "peak_flops_per_s"), attribute(hardware, "memory_bytes_per_s")
    if peak is None:
        return np.full(len(summary), np.nan)
    counts = np.exp2(summary[:, FLOAT_OPERATIONS].astype(np.float64)) - 1.0
    operations = counts.sum(axis=1) + counts[:, 0]  # a multiply-add is two
    streamed_s = 0.0 if bandwidth is None else ELEMENT_BYTES * elements(workload) / bandwidth
    found: NDArray[np.float64] = np.where(operations > 0, np.maximum(operations / peak, streamed_s), np.nan)
    return found


def elements(workload: WorkloadToken) -> float:
    """Of all arguments together, as far as the token holds them."""
    total = 0.0
    for start in range(1, len(workload), workload_tokens.DIMENSIONS + 1):
        dimensions = round(float(workload[start]) * workload_tokens.DIMENSIONS)
        extents = workload[start + 1 : start + 1 + dimensions]
        if dimensions:
            total += float(np.prod(np.exp2(extents.astype(np.float64) * workload_tokens.SCALE) - 1.0))
    return total
