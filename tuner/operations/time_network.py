"""Time a compiled network in alternation with its untuned build, and onnxruntime; called in children by `deploy`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crosstune.tuner.artifact import TunedNetwork, load_library
from crosstune.tuner.contracts import median
from crosstune.tuner.manifest import Manifest
from crosstune.tuner.operations.verify_network import input_sets
from crosstune.tuner.weights_file import Array

BLOCK_S = 0.1
"""Calls of one build come in blocks of this length, whose first call is dropped: it finds the other's data in cache."""
BLOCK_CALLS = 3
LEAST_CALLS = 30
FEWEST_CALLS = 6
"""Where even the longest duration is too short for `LEAST_CALLS`."""
LONGEST_S = 20.0


def builds(payload: dict[str, Any]) -> dict[str, Any]:
    """Latencies (seconds) of the builds in `libraries` (name -> path), which share `weights`, call by call.

    payload: libraries, weights, manifest, duration_s (of each build)
    """
    manifest = Manifest.from_json(payload["manifest"])
    weights = Path(payload["weights"])
    networks = {
        name: load_library(Path(path), weights, manifest, manifest.threads)
        for name, path in payload["libraries"].items()
    }
    inputs = next(iter(networks.values())).random_inputs(seed=0)
    latencies: dict[str, list[float]] = {name: [] for name in networks}
    start = time.perf_counter()
    while not _enough(latencies, payload["duration_s"], time.perf_counter() - start):
        for name, network in networks.items():
            latencies[name] += _block(network, inputs)
    return {name: _summary(values) for name, values in latencies.items()}


def _enough(latencies: dict[str, list[float]], duration_s: float, elapsed_s: float) -> bool:
    calls = min(len(values) for values in latencies.values())
    if elapsed_s >= LONGEST_S:
        return calls >= FEWEST_CALLS
    return calls >= LEAST_CALLS and min(sum(values) for values in latencies.values()) >= duration_s


def _block(network: TunedNetwork, inputs: list[Array]) -> list[float]:
    network(*inputs)
    latencies: list[float] = []
    until = time.perf_counter() + BLOCK_S
    while len(latencies) < BLOCK_CALLS or time.perf_counter() < until:
        before = time.perf_counter()
        network(*inputs)
        latencies.append(time.perf_counter() - before)
    return latencies


def _summary(latencies: list[float]) -> dict[str, Any]:
    ordered = sorted(latencies)
    tenth = len(ordered) // 10
    return {
        "median_s": median(ordered),
        "spread_s": [ordered[tenth], ordered[-1 - tenth]],
        "calls": len(ordered),
    }


def reference(payload: dict[str, Any]) -> dict[str, Any]:
    """onnxruntime's latency: its best optimisation level, the same threads, the stored inputs.

    payload: reference (ONNX path), inputs (.npz), manifest, duration_s, levels (of optimisation)
    """
    from crosstune.tuner.reference import best_latency

    manifest = Manifest.from_json(payload["manifest"])
    inputs = input_sets(payload["inputs"], manifest, 1)[0]
    return asdict(
        best_latency(Path(payload["reference"]), inputs, manifest.threads, payload["duration_s"], payload["levels"])
    )
