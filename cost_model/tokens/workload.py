"""A workload as one token: the shapes of its arguments, read from TVM's JSON of its program or from Ansor's key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.tokens.vocabulary import MISFITS, log_value

ARGUMENTS, DIMENSIONS = 6, 5
WORKLOAD_WIDTH = 1 + ARGUMENTS * (DIMENSIONS + 1)
"""Is it known; then for each argument its number of dimensions and its extents, the innermost first."""
WorkloadToken = NDArray[np.float32]
"""(WORKLOAD_WIDTH,)"""
SCALE = 8.0

Shapes = Sequence[Sequence[int]]


@lru_cache(maxsize=4096)
def workload_token(module: str, key: str = "") -> WorkloadToken:
    """From the program's JSON, or, where there is none, from Ansor's `key`; zeros when neither tells shapes."""
    shapes = _module_shapes(module) if module else _key_shapes(key)
    token = np.zeros(WORKLOAD_WIDTH, dtype=np.float32)
    if shapes:
        token[0] = 1.0
    # The last argument is the output; with more arguments than there is room for, those before it are left out.
    kept = [*shapes[: ARGUMENTS - 1], *shapes[-1:]] if len(shapes) > ARGUMENTS else list(shapes)
    for position, shape in enumerate(kept):
        start = 1 + position * (DIMENSIONS + 1)
        token[start] = len(shape) / DIMENSIONS
        extents = [log_value(max(0, extent)) / SCALE for extent in reversed(shape)][:DIMENSIONS]
        token[start + 1 : start + 1 + len(extents)] = extents
    token.flags.writeable = False
    return token


def _module_shapes(module: str) -> Shapes:
    """Of the parameters of the function in TVM's JSON graph; none when it has another form."""
    try:
        nodes = json.loads(module)["nodes"]
        function = next(node["data"] for node in nodes if node["type"] == "tirx.PrimFunc")
        return [_shape(nodes, parameter) for parameter in nodes[function["params"]]["data"]]
    except (StopIteration, *MISFITS):
        return []


def _shape(nodes: Sequence[Any], parameter: int) -> list[int]:
    buffer = nodes[nodes[parameter]["data"]["ty"]]["data"]
    extents = nodes[buffer["shape"]]["data"]
    return [int(nodes[nodes[extent]["data"]["value"]]["data"]) for extent in extents]


def _key_shapes(key: str) -> Shapes:
    """Ansor's workload key is `[hash or name, numbers and lists of numbers]`: shapes of its arguments, mostly."""
    try:
        parts = json.loads(key)
    except (ValueError, TypeError):
        return []
    if not isinstance(parts, list):
        return []
    lists = [part for part in parts if isinstance(part, list) and all(isinstance(each, int) for each in part)]
    numbers = [part for part in parts if isinstance(part, int) and not isinstance(part, bool)]
    return lists or ([numbers[start : start + DIMENSIONS] for start in range(0, len(numbers), DIMENSIONS)])
