"""Measured programs as models see them: grouped by workload and target, with tokens, labels and evidence.

Latencies compare only within a group. A program's label is the group's best latency over its own, 0 when it failed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import batches, modules
from crosstune.cost_model.features import FEATURE_LAYOUT, Matrix, layout_of, unpack
from crosstune.cost_model.formats.record import REPEAT
from crosstune.cost_model.tokens.hardware import HardwareToken, hardware_token
from crosstune.cost_model.tokens.schedule import ScheduleTokens, steps_of, tokens
from crosstune.cost_model.tokens.workload import WorkloadToken, workload_token

READ = [
    *("source", "format", "device", "target", "workload", "trace"),
    *("latencies_s", "features", "origin", "held_out"),
]


@dataclass(frozen=True, slots=True)
class Program:
    """One candidate and how it did."""

    identity: str
    """Equal for equal schedules, on whatever target."""
    schedule: ScheduleTokens
    statements: Matrix | None
    """(stores, 164); None where the program was never lowered."""
    latency_s: float | None
    """None: it failed."""


@dataclass(slots=True)
class Group:
    """All programs of one workload on one target from one source, each schedule once."""

    source: str
    device: str
    target: str
    """Canonical JSON."""
    workload: str
    hardware: HardwareToken
    shape: WorkloadToken
    held_out: bool
    programs: list[Program] = field(default_factory=list)
    repeated_s: dict[str, float] = field(default_factory=dict)
    """Second latencies by a program's identity."""

    @property
    def labels(self) -> NDArray[np.float64]:
        """(programs,), from 0 to 1."""
        latencies = [program.latency_s for program in self.programs]
        best = min((latency for latency in latencies if latency is not None), default=1.0)
        return np.array([0.0 if latency is None else best / latency for latency in latencies])

    @property
    def valid(self) -> int:
        return sum(program.latency_s is not None for program in self.programs)


def load_groups(folder: DatasetFolder, least: int = 8) -> list[Group]:
    """Every group of a data set with at least `least` programs that ran. All in memory: prune large sets first."""
    programs = modules(folder)
    groups: dict[tuple[str, ...], Group] = {}
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in (row for batch in batches(folder, READ) for row in batch.to_pylist()):
        key = (row["source"], row["device"], row["target"], row["workload"])
        identity = hashlib.sha256(row["trace"].encode()).hexdigest()
        if key not in groups:
            shape = workload_token(programs.get((row["source"], row["workload"]), ""), row["workload"])
            hardware = hardware_token(row["target"], row["device"])
            groups[key] = Group(*key, hardware, shape, bool(row["held_out"]))
        latency_s = median(row["latencies_s"]) if row["latencies_s"] else None
        if row["origin"] == REPEAT:
            if latency_s is not None:
                groups[key].repeated_s[identity] = latency_s
        elif identity not in seen[key]:
            seen[key].add(identity)
            groups[key].programs.append(_program(row, identity, latency_s))
    return [group for group in groups.values() if group.valid >= least]


def _program(row: dict[str, Any], identity: str, latency_s: float | None) -> Program:
    packed = row["features"]
    usable = isinstance(packed, bytes) and layout_of(packed) == FEATURE_LAYOUT
    return Program(
        identity=identity,
        schedule=tokens(steps_of(str(row["format"]), str(row["trace"]))),
        statements=unpack(packed) if usable and isinstance(packed, bytes) else None,
        latency_s=latency_s,
    )


def by_workload(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.workload].append(group)
    return dict(found)
