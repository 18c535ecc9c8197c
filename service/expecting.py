"""What is expected of workloads on a target, from the records that a project may see and the shipped table.

Brings numpy, which takes longer to import than the application should to start: import it where it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection

from crosstune.cost_model.bests import place_of, shipped
from crosstune.cost_model.expectation import Best, Computation, Expectations, Expected, Place
from crosstune.db.repositories import schedules, targets, workloads
from crosstune.db.repositories.targets import TargetRow
from crosstune.db.repositories.workloads import WorkloadRow
from crosstune.service.calibrated import known_attributes

MOST_RECORDED = 1000
"""Best latencies of the database that are looked at, so that the first answer takes about a second at most."""


def expected(
    connection: Connection, project_key: int, target: TargetRow, wanted: Sequence[WorkloadRow]
) -> dict[int, Expected]:
    """By workload key; workloads of which nothing can be said are left out."""
    place = _place(connection, target)
    if not place.told:
        return {}
    computations = [_computation(workload) for workload in wanted]
    found = _expectations(_known(connection, project_key, target, wanted)).of(computations, place)
    return {row.key: each for row, each in zip(wanted, found, strict=True) if each is not None}


def most_telling(
    connection: Connection, project_key: int, target: TargetRow, among: Sequence[WorkloadRow]
) -> int | None:
    """Key of the workload that would make what is expected of the others surest; None where nothing can be said."""
    known = _expectations(_known(connection, project_key, target, among))
    chosen = known.most_telling([_computation(workload) for workload in among], _place(connection, target))
    return None if chosen is None else among[chosen].key


@lru_cache(maxsize=2)
def _expectations(known: tuple[Best, ...]) -> Expectations:
    """The last ones are kept: what is known changes less often than somebody asks."""
    return Expectations(known)


def _known(
    connection: Connection, project_key: int, target: TargetRow, wanted: Sequence[WorkloadRow]
) -> tuple[Best, ...]:
    """Records outweigh the shipped table."""
    asked = [workload.key for workload in wanted]
    recorded = schedules.best_latencies(connection, project_key, target.key, asked, MOST_RECORDED)
    rows = workloads.get_by_keys(connection, sorted({one.workload_key for one in recorded}))
    computations = {row.key: _computation(row) for row in rows}
    keys = sorted({one.target_key for one in recorded})
    places = {key: _place(connection, targets.get_by_key(connection, key)) for key in keys}
    own = [Best(computations[one.workload_key], places[one.target_key], one.latency_s) for one in recorded]
    found = {(best.computation.key, best.place.identity): best for best in (*shipped(), *reversed(own))}
    return tuple(found.values())


def _place(connection: Connection, target: TargetRow) -> Place:
    return place_of(target.identity, {**target.spec, "attributes": known_attributes(connection, target.key)})


def _computation(row: WorkloadRow) -> Computation:
    arguments = tuple((dtype, tuple(sizes)) for dtype, sizes in row.args)
    return Computation(row.version_free_key, row.name, row.flops, arguments)
