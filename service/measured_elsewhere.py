"""What other targets measured of a workload, as the ranker takes it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from crosstune.db.repositories import targets
from crosstune.db.repositories.schedules import Elsewhere
from crosstune.service.calibrated import known_attributes
from crosstune.tuner.contracts import MeasuredElsewhere, TargetSpec

EVIDENCE_PER_TARGET = 64
"""Schedules of the same workload on each other target that the ranker sees."""


def by_target(connection: Connection, found: Sequence[Elsewhere]) -> tuple[MeasuredElsewhere, ...]:
    """By target, with what is known of its hardware."""
    there: dict[int, list[Elsewhere]] = {}
    for one in found:
        there.setdefault(one.target_key, []).append(one)
    return tuple(
        MeasuredElsewhere(
            TargetSpec.from_json(targets.get_by_key(connection, key).spec),
            known_attributes(connection, key),
            tuple(one.trace for one in schedules_there),
            tuple(one.latency_s for one in schedules_there),
        )
        for key, schedules_there in there.items()
    )
