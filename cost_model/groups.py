"""Measured programs as models see them: grouped by workload and target, with tokens, labels and evidence.

Latencies compare only within a group. A program's label is the group's best latency over its own, 0 when it failed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.features import Matrix
from crosstune.cost_model.tokens.hardware import HardwareToken
from crosstune.cost_model.tokens.schedule import ScheduleTokens, padded, schedule_rows
from crosstune.cost_model.tokens.workload import WorkloadToken

LEAST_SPREAD = 0.05
"""Of a group's labels: smaller ones are noise, not to be blown up."""


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
    _schedules: NDArray[np.float32] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def schedules(self) -> NDArray[np.float32]:
        """(programs, d): each schedule's primitives one by one, then summed by kind. Worked out once, since every other
        target asks for it."""
        if self._schedules is None or len(self._schedules) != len(self.programs):
            steps = padded([program.schedule for program in self.programs])
            self._schedules = schedule_rows(steps.kinds, steps.values, steps.mask)
        return self._schedules

    @property
    def labels(self) -> NDArray[np.float64]:
        """(programs,), from 0 to 1."""
        latencies = [program.latency_s for program in self.programs]
        best = min((latency for latency in latencies if latency is not None), default=1.0)
        return np.array([0.0 if latency is None else best / latency for latency in latencies])

    @property
    def valid(self) -> int:
        return sum(program.latency_s is not None for program in self.programs)


def standardised(labels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Labels of a group in deviations from their mean, so that every group counts alike."""
    found: NDArray[np.float32] = ((labels - labels.mean()) / (labels.std() + LEAST_SPREAD)).astype(np.float32)
    return found


def by_workload(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.workload].append(group)
    return dict(found)
