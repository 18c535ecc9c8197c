"""The best known schedules of a network's workloads, or of one workload, each with how it is known."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.repositories import networks, schedules
from crosstune.db.repositories.schedules import BestSchedule as BestRow
from crosstune.db.repositories.workloads import WorkloadRow
from crosstune.service import lookups
from crosstune.service.errors import SelectionRefused
from crosstune.service.principal import Principal
from crosstune.service.schemas.schedules import BestSchedule, BestSchedules, Label
from crosstune.service.services import Services


@dataclass(frozen=True, slots=True)
class Known:
    label: Label
    row: BestRow | None


def best(
    services: Services, caller: Principal, target: str, network: str | None, workload: str | None, traces: bool
) -> BestSchedules:
    if (network is None) == (workload is None):
        raise SelectionRefused("give either network or workload, not both and not neither")
    with reading(services.engine) as connection:
        target_row = lookups.target(connection, target)
        network_id, wanted = _wanted(connection, caller, network, workload)
        known = known_schedules(connection, caller, target_row.key, [row.key for row, _ in wanted])
    found = [_out(row, weight, known[row.key], traces) for row, weight in wanted]
    measured = all(item.label is Label.MEASURED for item in found)
    total_s = sum(item.weight * (item.latency_s or 0.0) for item in found) if measured and found else None
    return BestSchedules(target=target_row.id, network=network_id, latency_s=total_s, schedules=found)


def known_schedules(
    connection: Connection, caller: Principal, target_key: int, workload_keys: list[int]
) -> dict[int, Known]:
    """Per workload: the best measured on this target with this TVM, else the best from elsewhere, else nothing."""
    measured = schedules.best(connection, target_key, workload_keys, caller.project_key)
    missing = [key for key in workload_keys if key not in measured]
    elsewhere = schedules.transferred(connection, target_key, missing, caller.project_key) if missing else {}
    known = {key: Known(Label.MEASURED, row) for key, row in measured.items()}
    known |= {key: Known(Label.TRANSFERRED, row) for key, row in elsewhere.items()}
    return {key: known.get(key, Known(Label.NONE, None)) for key in workload_keys}


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
    )
