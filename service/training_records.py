"""Our own records as training data: streamed from the database as the plain values that cost_model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from crosstune.cost_model.formats import metaschedule
from crosstune.cost_model.formats.record import UNKNOWN, Item, Record, WorkloadRow, canonical
from crosstune.db.engine import create_engine, reading
from crosstune.db.judging import FULL, QUICK, Status
from crosstune.db.migrate import require_head
from crosstune.db.repositories import listing, projects, targets, workloads
from crosstune.db.repositories.listing import MeasurementRow, RecordRow

VERSION = "crosstune"
BELIEVED = (Status.VALID, Status.PROVISIONAL)


def stream(database_url: str) -> Iterator[Item]:
    """Each workload before its first record, oldest record first, a thousand read at a time.

    What was withdrawn, imported or only censored is left out, and what another project keeps to itself.
    """
    engine = create_engine(database_url)
    try:
        require_head(engine)
        with reading(engine) as connection:
            yield from _items(connection, projects.get(connection).key)
    finally:
        engine.dispose()


def _items(connection: Connection, project_key: int) -> Iterator[Item]:
    specs: dict[str, str] = {}
    seen: set[str] = set()
    for number, (record, attempts) in enumerate(listing.stream(connection, project_key), 1):
        runs = _runs(attempts)
        if record.status not in BELIEVED or not (runs or record.invalidity):
            continue
        if record.workload_sha256 not in seen:
            seen.add(record.workload_sha256)
            module = workloads.module_of(connection, workloads.get(connection, record.workload_id).key)
            yield WorkloadRow(record.workload_sha256, record.workload_name, module)
        if record.target_id not in specs:
            specs[record.target_id] = canonical(targets.get(connection, record.target_id).spec)
        yield _record(record, attempts, runs, specs[record.target_id], number)


def _record(
    record: RecordRow, attempts: Sequence[MeasurementRow], runs: tuple[float, ...], target: str, number: int
) -> Record:
    return Record(
        format=metaschedule.FORMAT,
        version=VERSION,
        workload=record.workload_sha256,
        target=target,
        trace=canonical(record.trace),
        latencies_s=runs,
        invalidity=None if runs else record.invalidity or UNKNOWN,
        measured_at=max((attempt.measured_at for attempt in attempts), default=None),
        line=number,
    )


def _runs(attempts: Sequence[MeasurementRow]) -> tuple[float, ...]:
    """Seconds per run of the full measurements, or of the quick ones where there are no full ones."""
    for quality in (FULL, QUICK):
        runs = [
            latency_s
            for attempt in attempts
            if attempt.quality == quality and attempt.status in BELIEVED and attempt.invalidity is None
            for latency_s in attempt.latencies_s
        ]
        if runs:
            return tuple(runs)
    return ()
