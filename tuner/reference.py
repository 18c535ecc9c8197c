"""onnxruntime as the reference: what the network should answer, and how fast the usual runtime is.

Runs in a child of its own, which is closed before anything else is timed, since its threads spin.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosstune.tuner.contracts import median
from crosstune.tuner.weights_file import Array

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""onnxruntime's graph optimisation levels; `all` is not always the fastest, so each is tried."""
TRIAL_SHARE = 0.2
WARM_UP_RUNS = 2
LEAST_RUNS = 30
LONGEST_S = 10.0


@dataclass(frozen=True, slots=True)
class ReferenceLatency:
    """The median of the best level's runs (seconds), and every level's in a short trial."""

    latency_s: float
    level: str
    trials_s: dict[str, float]
    version: str


def open_session(model: Path, threads: int, level: str) -> Any:
    """An onnxruntime session on the CPU: `threads` inside an operator, one operator after the other."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def outputs(
    model: Path, input_sets: Sequence[dict[str, Array]], names: Sequence[str], threads: int
) -> list[list[Array]]:
    """The outputs called `names` for each set of inputs, with the plain graph (nothing fused or reordered)."""
    session = open_session(model, threads, "basic")
    return [session.run(list(names), inputs) for inputs in input_sets]


def best_latency(
    model: Path, inputs: dict[str, Array], threads: int, duration_s: float, levels: Sequence[str]
) -> ReferenceLatency:
    """Time each of the optimisation `levels` briefly, then the best one for `duration_s` and at least 30 runs."""
    import onnxruntime

    trials_s: dict[str, float] = {}
    for level in levels:
        trials_s[level] = median(_latencies_s(open_session(model, threads, level), inputs, TRIAL_SHARE * duration_s, 3))
    best = min(trials_s, key=lambda level: trials_s[level])
    latencies = _latencies_s(open_session(model, threads, best), inputs, duration_s, LEAST_RUNS)
    return ReferenceLatency(median(latencies), best, trials_s, onnxruntime.__version__)


def _latencies_s(session: Any, inputs: dict[str, Array], duration_s: float, least: int) -> list[float]:
    for _ in range(WARM_UP_RUNS):
        session.run(None, inputs)
    latencies: list[float] = []
    start = time.perf_counter()
    while (elapsed_s := time.perf_counter() - start) < LONGEST_S and (len(latencies) < least or elapsed_s < duration_s):
        before = time.perf_counter()
        session.run(None, inputs)
        latencies.append(time.perf_counter() - before)
    return latencies
