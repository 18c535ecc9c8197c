"""Records: pages and the NDJSON export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.ids import Prefix
from crosstune.db.repositories import listing
from crosstune.db.repositories.listing import RecordRow
from crosstune.service import lookups
from crosstune.service.principal import Principal
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.records import RecordOut
from crosstune.service.services import Services

LIST = "records"


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
