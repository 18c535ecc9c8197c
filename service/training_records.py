"""Our own records as training data: streamed from the database as the plain values that cost_model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.cost_model.formats import metaschedule
from crosstune.cost_model.formats.record import UNKNOWN, Item, Record, WorkloadRow, canonical
from crosstune.cost_model.hold_out import is_held_out, is_judged
from crosstune.db.engine import create_engine, reading
from crosstune.db.judging import FULL, QUICK, Status
from crosstune.db.migrate import require_head
from crosstune.db.repositories import listing, projects, targets, workloads
from crosstune.db.repositories.listing import MeasurementRow, RecordFilter, RecordRow
from crosstune.service.calibrated import known_attributes
from crosstune.tuner.tvm_adapter.compute import anchor_key

VERSION = "crosstune"
QUALITIES = (FULL, QUICK)
"""The better first: full measurements count alone where there are some."""
BELIEVED = (Status.VALID, Status.PROVISIONAL)


def stream(database_url: str) -> Iterator[Item]:
    """Each workload before its first record, oldest record first, a thousand read at a time.

    What was withdrawn, imported or only censored is left out, and what another project keeps to itself.
    """
    engine = create_engine(database_url)
    try:
        require_head(engine)
        with reading(engine) as connection:
            yield from items(connection, projects.get(connection).key)
    finally:
        engine.dispose()


def items(
    connection: Connection,
    project_key: int,
    only: RecordFilter | None = None,
    judged: bool = False,
    imported: bool = False,
) -> Iterator[Item]:
    """The same of the records that `only` names. `judged`: workloads that retrained versions are judged by count as
    held out too. `imported`: with what was imported and never measured here."""
    believed = (*BELIEVED, Status.IMPORTED) if imported else BELIEVED
    specs: dict[str, str] = {}
    held_out: dict[str, bool] = {}
    for number, (record, attempts) in enumerate(listing.stream(connection, project_key, only), 1):
        runs = _runs(attempts, believed)
        if record.status not in believed or not (runs or record.invalidity):
            continue
        if record.workload_sha256 not in held_out:
            workload = workloads.get(connection, record.workload_id)
            module = workloads.module_of(connection, workload.key)
            key = workload.version_free_key
            held_out[record.workload_sha256] = is_held_out(key, _anchor(module)) or (judged and is_judged(key))
            yield WorkloadRow(record.workload_sha256, record.workload_name, module)
        if record.target_id not in specs:
            specs[record.target_id] = _target(connection, record.target_id)
        found = _record(record, attempts, runs, specs[record.target_id], number, believed)
        yield found._replace(held_out=held_out[record.workload_sha256])


def _record(
    record: RecordRow,
    attempts: Sequence[MeasurementRow],
    runs: tuple[float, ...],
    target: str,
    number: int,
    believed: Sequence[Status],
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
        features=next((a.features for a in attempts if a.features and a.feature_layout == FEATURE_LAYOUT), None),
        quality=next(
            (q for q in QUALITIES if runs and any(a.quality == q and _counts(a, believed) for a in attempts)), ""
        ),
    )


def _target(connection: Connection, target_id: str) -> str:
    """The target's fields, with what is known of its hardware."""
    row = targets.get(connection, target_id)
    attributes = known_attributes(connection, row.key)
    return canonical({**row.spec, **({"attributes": attributes} if attributes else {})})


def _anchor(module: str) -> str | None:
    """None also for modules of another compiler version, whose form this one does not read."""
    try:
        return anchor_key(module)
    except (ValueError, LookupError, StopIteration, TypeError):
        return None


def _counts(attempt: MeasurementRow, believed: Sequence[Status]) -> bool:
    return attempt.status in believed and attempt.invalidity is None


def _runs(attempts: Sequence[MeasurementRow], believed: Sequence[Status]) -> tuple[float, ...]:
    """Seconds per run of the full measurements, or of the quick ones where there are no full ones."""
    for quality in QUALITIES:
        runs = [
            latency_s
            for attempt in attempts
            if attempt.quality == quality and _counts(attempt, believed)
            for latency_s in attempt.latencies_s
        ]
        if runs:
            return tuple(runs)
    return ()
