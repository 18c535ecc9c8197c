"""Real programs on a device that does not exist: on it whatever is slow is fast. The shipped model must be wrong there,
and a retrained one can be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import modules
from crosstune.cost_model.pretrained import dataset_folder

PART = 6
"""Of the shipped data: one collection."""
LEAST_PROGRAMS = 12


@dataclass(frozen=True, slots=True)
class Measured:
    """One program; latencies in seconds, on the strange device."""

    trace: str
    features: bytes
    latency_s: float


@dataclass(frozen=True, slots=True)
class StrangeWorkload:
    sha256: str
    name: str
    module: str
    programs: Sequence[Measured]


def strange_workloads(most: int) -> list[StrangeWorkload]:
    """Of one target of the shipped data, those with enough programs that have features, at most `most`."""
    folder = DatasetFolder(dataset_folder())
    table = pq.read_table(folder.records_path(PART))
    names = ("target", "workload", "trace", "features", "latencies_s", "source")
    rows = list(columns.rows(table, names))
    target = rows[0][0]
    programs: dict[tuple[str, str], list[Measured]] = {}
    for found, workload, trace, features, latencies_s, source in rows:
        if found == target and features and latencies_s:
            latency_s = 1e-6 / min(latencies_s)
            programs.setdefault((source, workload), []).append(Measured(trace, features, latency_s))
    known = modules(folder)
    return [
        StrangeWorkload(key[1], "conv2d" if number % 2 else "matmul", known[key], found)
        for number, (key, found) in enumerate(sorted(programs.items()))
        if len(found) >= LEAST_PROGRAMS and key in known
    ][:most]
