"""Records: pages, the NDJSON export, what others measured, withdrawal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.ids import Prefix
from crosstune.db.repositories import cost_models, listing
from crosstune.db.repositories import records as repository
from crosstune.db.repositories.listing import RecordRow
from crosstune.db.repositories.records import Origin
from crosstune.service import idempotency, journal, lookups, work
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.errors import UploadEmpty
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.records import LoadOut, RecordOut, WithdrawIn, WithdrawOut
from crosstune.service.services import Services
from crosstune.service.store import Incoming, Stored

LIST = "records"
ARTIFACT_KIND = "records"


@dataclass(frozen=True, slots=True)
class RecordFilter:
    target: str | None = None
    network: str | None = None
    workload: str | None = None
    failed: bool | None = None
    """True: only schedules that failed; False: only those with a latency; None: both."""

    def resolved(self, connection: Connection, caller: Principal) -> listing.RecordFilter:
        return listing.RecordFilter(
            target_key=lookups.target(connection, self.target).key if self.target else None,
            network_id=lookups.network(connection, caller, self.network).id if self.network else None,
            workload_key=lookups.workload(connection, self.workload).key if self.workload else None,
            measured=self.failed is False,
            failed=self.failed is True,
        )


def page(
    services: Services, caller: Principal, chosen: RecordFilter, limit: int, cursor: str | None
) -> Page[RecordOut]:
    before = lookups.page_start(LIST, cursor, Prefix.RECORD)
    with reading(services.engine) as connection:
        only = chosen.resolved(connection, caller)
        rows = listing.list_page(connection, caller.project_key, limit + 1, before, only)
    return lookups.page_of(LIST, rows, limit, lambda shown: [_out(row) for row in shown], lambda row: row.id)


def export(services: Services, caller: Principal, chosen: RecordFilter) -> Iterator[str]:
    """Lines of NDJSON; the filter is checked before the first one."""
    with reading(services.engine) as connection:
        only = chosen.resolved(connection, caller)
    return _lines(services, caller, only)


def load(services: Services, caller: Principal, key: str | None, incoming: Incoming) -> Reply:
    """Keep an upload of records; a step tells them apart and stores those that can be used."""
    try:
        if incoming.size_bytes == 0:
            raise UploadEmpty
        with services.store.locked():
            stored = services.store.keep(caller.project, ARTIFACT_KIND, incoming)
            request = ["import_records", stored.sha256]
            return idempotency.once(
                services, caller, key, request, lambda connection: _submit(connection, caller, stored)
            )
    finally:
        services.store.drop(incoming)


def _submit(connection: Connection, caller: Principal, stored: Stored) -> Reply:
    artifact_id = add_artifact(connection, caller.project_id, ARTIFACT_KIND, stored)
    step_id = work.enqueue_load(connection, caller.project_id, artifact_id)
    journal.note(connection, caller, "import", step_id)
    return reply(202, LoadOut(step=step_id, sha256=stored.sha256))


def withdraw(services: Services, caller: Principal, body: WithdrawIn) -> WithdrawOut:
    def run(connection: Connection) -> WithdrawOut:
        origin = Origin(
            device_key=lookups.device(connection, body.device).key if body.device else None,
            worker_key=lookups.worker(connection, body.worker).key if body.worker else None,
            since=body.since.timestamp() if body.since else None,
            until=body.until.timestamp() if body.until else None,
        )
        found = repository.withdraw_from(connection, origin, body.reason)
        first = found.first_measured_at
        marked = [] if first is None else cost_models.mark_withdrawn(connection, first, body.reason, found.measurements)
        journal.note(connection, caller, "withdraw", body.device or body.worker or "")
        return WithdrawOut(measurements=found.measurements, records=found.records, cost_models=marked)

    return retrying(services.engine, run)


def _lines(services: Services, caller: Principal, only: listing.RecordFilter) -> Iterator[str]:
    with reading(services.engine) as connection:
        yield from listing.ndjson(connection, caller.project_key, only)


def _out(row: RecordRow) -> RecordOut:
    return RecordOut(
        id=row.id,
        target=row.target_id,
        workload=row.workload_sha256,
        schedule=row.schedule_sha256,
        latency_s=row.latency_s,
        quality=row.quality,
        status=row.status,
        invalidity=row.invalidity,
        permanent=row.permanent,
        source=row.source,
        cost_model=row.cost_model,
        tvm_version=row.tvm_version,
        measurements=row.measurement_count,
        updated_at=lookups.utc(row.updated_at),
    )
