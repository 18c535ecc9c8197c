"""Devices and workers as the API shows them; pause, resume, drain."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.ids import Prefix
from crosstune.db.repositories import devices, workers
from crosstune.db.repositories.devices import DeviceRow
from crosstune.db.repositories.workers import WorkerRow
from crosstune.service import availability, journal, lookups
from crosstune.service.principal import Principal
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.devices import DeviceOut, DeviceState, WorkerOut
from crosstune.service.services import Services

DEVICES, WORKERS = "devices", "workers"


def page(services: Services, limit: int, cursor: str | None) -> Page[DeviceOut]:
    before = lookups.page_start(DEVICES, cursor, Prefix.DEVICE)
    with reading(services.engine) as connection:
        rows = devices.list_page(connection, limit + 1, before)
        return lookups.page_of(
            DEVICES, rows, limit, lambda shown: _shown(services, connection, shown), lambda row: row.id
        )


def show(services: Services, reference: str) -> DeviceOut:
    with reading(services.engine) as connection:
        return _shown(services, connection, [lookups.device(connection, reference)])[0]


def set_state(services: Services, caller: Principal, reference: str, state: DeviceState) -> DeviceOut:
    """Change what the device may do; saying it twice changes nothing."""

    def change(connection: Connection) -> DeviceOut:
        row = devices.set_state(connection, lookups.device(connection, reference).id, devices.DeviceState(state.value))
        journal.note(connection, caller, f"device-{state}", row.id)
        return _shown(services, connection, [row])[0]

    return retrying(services.engine, change)


def workers_page(services: Services, limit: int, cursor: str | None) -> Page[WorkerOut]:
    before = lookups.page_start(WORKERS, cursor, Prefix.WORKER)
    seen_after = availability.seen_after(services)
    with reading(services.engine) as connection:
        rows = workers.list_page(connection, limit + 1, before)
    return lookups.page_of(
        WORKERS, rows, limit, lambda shown: [_worker(row, seen_after) for row in shown], lambda row: row.id
    )


def set_draining(services: Services, caller: Principal, worker_id: str, draining: bool) -> WorkerOut:
    """Ask a worker to take nothing new, or to take work again; it hears of it with its next heartbeat."""

    def change(connection: Connection) -> WorkerOut:
        row = workers.drain(connection, lookups.worker(connection, worker_id).id, draining)
        journal.note(connection, caller, "worker-drain" if draining else "worker-resume", row.id)
        return _worker(row, availability.seen_after(services))

    return retrying(services.engine, change)


def _shown(services: Services, connection: Connection, rows: Sequence[DeviceRow]) -> list[DeviceOut]:
    live_hosts = {worker.host for worker in workers.seen_since(connection, availability.seen_after(services))}
    now = time.time()
    return [
        DeviceOut(
            id=row.id,
            name=row.name,
            host=row.host,
            kind=row.kind,
            state=DeviceState(row.state.value),
            targets=devices.targets_of(connection, row.key),
            measuring=row.owner is not None and row.lease_until > now,
            live=row.host in live_hosts,
            calibration=row.last_calibration,
            created_at=lookups.utc(row.created_at),
        )
        for row in rows
    ]


def _worker(row: WorkerRow, seen_after: float) -> WorkerOut:
    return WorkerOut(
        id=row.id,
        host=row.host,
        process=row.pid,
        version=row.version,
        live=row.stopped_at is None and row.last_seen >= seen_after,
        draining=row.draining,
        last_seen_at=lookups.utc(row.last_seen),
        started_at=lookups.utc(row.started_at),
        stopped_at=lookups.utc_or_none(row.stopped_at),
    )
