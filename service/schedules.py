"""The best known schedules of a network's workloads, or of one workload, each with how it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.repositories import networks, schedules
from crosstune.db.repositories.schedules import BestSchedule as BestRow
from crosstune.db.repositories.targets import TargetRow
from crosstune.db.repositories.workloads import WorkloadRow
from crosstune.service import lookups
from crosstune.service.errors import SelectionRefused
from crosstune.service.principal import Principal
from crosstune.service.schemas.schedules import BestSchedule, BestSchedules, Label
from crosstune.service.services import Services

if TYPE_CHECKING:
    from crosstune.cost_model.expectation import Expected


@dataclass(frozen=True, slots=True)
class Known:
    label: Label
    row: BestRow | None
    expected: Expected | None
    """Where it was not measured here and something can be said."""


def best(
    services: Services, caller: Principal, target: str, network: str | None, workload: str | None, traces: bool
) -> BestSchedules:
    if (network is None) == (workload is None):
        raise SelectionRefused("give either network or workload, not both and not neither")
    with reading(services.engine) as connection:
        target_row = lookups.target(connection, target)
        network_id, wanted = _wanted(connection, caller, network, workload)
        known = known_schedules(connection, caller.project_key, target_row, [row for row, _ in wanted])
    found = [_out(row, weight, known[row.key], traces) for row, weight in wanted]
    measured = all(item.label is Label.MEASURED for item in found)
    total_s = sum(item.weight * (item.latency_s or 0.0) for item in found) if measured and found else None
    return BestSchedules(
        target=target_row.id,
        network=network_id,
        latency_s=total_s,
        schedules=found,
        **seconds(expected_sum([(weight, known[row.key]) for row, weight in wanted])),
    )


def known_schedules(
    connection: Connection, project_key: int, target: TargetRow, wanted: Sequence[WorkloadRow]
) -> dict[int, Known]:
    """Per workload: the best measured on this target with this TVM, else the best from elsewhere, else nothing; and
    what is expected of those that were not measured."""
    keys = [workload.key for workload in wanted]
    measured = schedules.best(connection, target.key, keys, project_key)
    missing = [workload for workload in wanted if workload.key not in measured]
    if not missing:
        return {key: Known(Label.MEASURED, row, None) for key, row in measured.items()}
    from crosstune.service import expecting  # numpy, which the application starts without

    elsewhere = schedules.transferred(connection, target.key, [workload.key for workload in missing], project_key)
    expected = expecting.expected(connection, project_key, target, missing)
    known = {key: Known(Label.PREDICTED, None, each) for key, each in expected.items()}
    known |= {key: Known(Label.TRANSFERRED, row, expected.get(key)) for key, row in elsewhere.items()}
    known |= {key: Known(Label.MEASURED, row, None) for key, row in measured.items()}
    return {key: known.get(key, Known(Label.NONE, None, None)) for key in keys}


def expected_sum(weighted: Sequence[tuple[int, Known]]) -> Expected | None:
    """Of weight times latency; None unless each was measured or something is expected of it."""
    terms: list[tuple[float, Expected | float]] = []
    for weight, known in weighted:
        if known.label is Label.MEASURED and known.row is not None:
            terms.append((weight, known.row.latency_s))
        elif known.expected is not None:
            terms.append((weight, known.expected))
        else:
            return None
    if not any(known.expected is not None for _, known in weighted):
        return None  # all were measured: there is nothing to expect
    from crosstune.cost_model.expectation import total  # numpy, as above

    return total(terms)


def seconds(expected: Expected | None) -> dict[str, float]:
    """The members of an Expectation."""
    if expected is None:
        return {}
    return {
        "expected_latency_s": expected.latency_s,
        "expected_low_s": expected.low_s,
        "expected_high_s": expected.high_s,
    }


def _wanted(
    connection: Connection, caller: Principal, network: str | None, workload: str | None
) -> tuple[str | None, list[tuple[WorkloadRow, int]]]:
    if network is not None:
        row = lookups.ready_network(connection, caller, network)
        return row.id, [(task.workload, task.weight) for task in networks.tasks_of(connection, row.id)]
    return None, [(lookups.workload(connection, workload or ""), 1)]


def _out(workload: WorkloadRow, weight: int, known: Known, traces: bool) -> BestSchedule:
    row = known.row
    return BestSchedule(
        workload=workload.sha256,
        name=workload.name,
        weight=weight,
        flops=workload.flops,
        label=known.label,
        latency_s=row.latency_s if row else None,
        quality=row.quality if row else None,
        schedule=row.schedule_sha256 if row else None,
        from_target=row.target_id if row else None,
        tvm_version=row.tvm_version if row else None,
        trace=row.trace if row and traces else None,
        **seconds(known.expected),
    )
