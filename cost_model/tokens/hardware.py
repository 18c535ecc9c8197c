"""The hardware of a target as one token: its attributes as logarithms, and which of them are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.hardware.known import lookup

# Each with the value that stands for 1, so that the logarithms are of the order of one. Appended to, never reordered.
UNITS: Mapping[str, float] = {
    "cores": 1.0,
    "frequency_hz": 1e9,
    "vector_bits": 128.0,
    "vector_units": 1.0,
    "l1d_bytes": 32.0 * 2**10,
    "l2_bytes": 512.0 * 2**10,
    "last_cache_bytes": 16.0 * 2**20,
    "memory_bytes_per_s": 1e10,
    "peak_flops_per_s": 1e11,
    "parallel_loop_s": 1e-6,
    "multiprocessors": 16.0,
    "shared_bytes": 64.0 * 2**10,
}
SCALE = 4.0
HARDWARE_WIDTH = 1 + 2 * len(UNITS)
"""Is it a GPU; then each attribute; then whether each is known."""
HardwareToken = NDArray[np.float32]
"""(HARDWARE_WIDTH,)"""
GPUS = frozenset({"cuda", "rocm", "metal", "vulkan", "opencl"})


@lru_cache(maxsize=4096)
def hardware_token(target: str, device: str = "") -> HardwareToken:
    """Of a target (canonical JSON) and, where the target does not tell, the `device` it was measured on.

    A target may carry `attributes` of its own (detected, calibrated); they outweigh the table of known hardware.
    """
    fields: dict[str, Any] = json.loads(target)
    attributes = {**(lookup(fields, device) or {}), **fields.get("attributes", {}), **_cores(fields)}
    token = np.zeros(HARDWARE_WIDTH, dtype=np.float32)
    token[0] = attributes.get("kind") == "gpu" or fields.get("kind") in GPUS
    for position, (name, unit) in enumerate(UNITS.items(), 1):
        value = attributes.get(name)
        if isinstance(value, int | float) and value > 0:
            token[position] = log2(value / unit) / SCALE
            token[position + len(UNITS)] = 1.0
    token.flags.writeable = False
    return token


def attribute(token: HardwareToken, name: str) -> float | None:
    """The value of an attribute (a name in UNITS) that a token holds."""
    position = 1 + list(UNITS).index(name)
    if not token[position + len(UNITS)]:
        return None
    return float(UNITS[name] * 2.0 ** (SCALE * float(token[position])))


def distance(one: HardwareToken, other: HardwareToken) -> float:
    """How unlike two tokens are, over the attributes that are known of both."""
    known = 1 + len(UNITS)
    both = one[known:] * other[known:]
    unlike = float(np.sum(np.abs(one[1:known] - other[1:known]) * both))
    return unlike + 4.0 * float(abs(one[0] - other[0]))


def _cores(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    cores = fields.get("cores", fields.get("num-cores"))
    return {"cores": cores} if cores else {}
