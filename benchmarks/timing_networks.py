"""Latencies of compiled networks that compare: in one process, in alternation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from crosstune import load

PASSES, RUNS = 9, 30


def alternately(artifacts: Mapping[str, Path]) -> dict[str, float]:
    """Median latency of each network in seconds, all on the same kind of random input."""
    networks = {name: load(path) for name, path in artifacts.items()}
    given = {name: network.random_inputs(seed=0) for name, network in networks.items()}
    timed: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(PASSES):
        for name, network in networks.items():
            for _ in range(RUNS):
                began_s = time.perf_counter()
                network(*given[name])
                timed[name].append(time.perf_counter() - began_s)
    return {name: median(found) for name, found in timed.items()}
