"""Records for people and for export: filters, pages, a stream of any length, and a sample to measure again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, literal, or_, select

from crosstune.db.codec import digest, hex_or_none, unpack_json
from crosstune.db.errors import NotFound
from crosstune.db.judging import FULL, Status
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.repositories.schedules import BEST_RECORDS
from crosstune.db.tables import CostModel, Label, Measurement, NetworkTask, Record, Step, Target, Workload

BATCH = 1000


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """What to list; null means any. `measured` keeps records that have a latency, `failed` those that have none."""

    target_key: int | None = None
    workload_key: int | None = None
    network_id: str | None = None
    status: str | None = None
    quality: str | None = None
    source: str | None = None
    measured: bool = False
    failed: bool = False
    target_keys: tuple[int, ...] = ()
    """Any of these; empty: all."""
    operators: tuple[str, ...] = ()
    """Workloads whose names hold any of these words."""
    since: float | None = None
    """Judged anew at this moment or later."""
    job_labels: tuple[tuple[str, str], ...] = ()
    """Measured by a job that has all of these."""


@dataclass(frozen=True, slots=True)
class RecordRow:
    key: int
    id: str
    target_id: str
    workload_id: str
    workload_sha256: str
    workload_name: str
    tvm_version: str
    schedule_sha256: str
    module_sha256: str | None
    status: str
    latency_s: float | None
    quality: str | None
    invalidity: str | None
    permanent: bool
    transient_failures: int
    measurement_count: int
    source: str
    visibility: str
    cost_model: str | None
    """Id of the version that proposed it; None: the shipped one, or none."""
    withdrawn_reason: str | None
    created_at: float
    updated_at: float
    packed_trace: bytes

    @property
    def trace(self) -> Any:
        return unpack_json(self.packed_trace)


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    record_key: int
    conditions: Any
    latencies_s: list[float]
    quality: str
    status: str
    invalidity: str | None
    detail: str
    measured_at: float
    features: bytes | None
    """Stored with the first measurement of a record only."""
    feature_layout: int | None


@dataclass(frozen=True, slots=True)
class AuditCandidate:
    """A stored best schedule, to be measured again in a fresh process."""

    record_key: int
    record_id: str
    workload_key: int
    schedule_sha256: str
    latency_s: float
    packed_trace: bytes

    @property
    def trace(self) -> Any:
        return unpack_json(self.packed_trace)


def list_page(
    connection: Connection, project_key: int, limit: int, before: str | None = None, only: RecordFilter | None = None
) -> list[RecordRow]:
    """Newest first, what the project may see; `before` is the id of the last record of the page before."""
    query = _rows(project_key, only or RecordFilter()).order_by(Record.key.desc()).limit(limit)
    if before is not None:
        query = query.where(Record.key < select(Record.key).where(Record.id == before).scalar_subquery())
    return [_record(row) for row in connection.execute(query)]


def get(connection: Connection, record_id: str, project_key: int) -> RecordRow:
    row = connection.execute(_rows(project_key, RecordFilter()).where(Record.id == record_id)).one_or_none()
    if row is None:
        raise NotFound("record", record_id)
    return _record(row)


def find(
    connection: Connection, project_key: int, target_key: int, workload_key: int, schedule_sha256: str
) -> RecordRow | None:
    """The record of one schedule of a workload on a target, unless it was withdrawn."""
    only = RecordFilter(target_key=target_key, workload_key=workload_key)
    query = _rows(project_key, only).where(Record.schedule_sha256 == digest(schedule_sha256))
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def measurements_of(connection: Connection, record_keys: list[int]) -> dict[int, list[MeasurementRow]]:
    """Every attempt of each record, oldest first."""
    found: dict[int, list[MeasurementRow]] = {key: [] for key in record_keys}
    rows = connection.execute(
        select(
            Measurement.record_key,
            Measurement.conditions,
            Measurement.latencies,
            Measurement.quality,
            Measurement.status,
            Measurement.invalidity,
            Measurement.detail,
            Measurement.measured_at,
            Measurement.features,
            Measurement.feature_layout,
        )
        .where(Measurement.record_key.in_(record_keys))
        .order_by(Measurement.key)
    )
    for row in rows:
        found[row.record_key].append(MeasurementRow(*row))
    return found


def stream(
    connection: Connection, project_key: int, only: RecordFilter | None = None
) -> Iterator[tuple[RecordRow, list[MeasurementRow]]]:
    """Every visible record with its measurements, oldest first, read a thousand at a time."""
    last = 0
    while True:
        query = _rows(project_key, only or RecordFilter()).where(Record.key > last).order_by(Record.key).limit(BATCH)
        records = [_record(row) for row in connection.execute(query)]
        if not records:
            return
        attempts = measurements_of(connection, [record.key for record in records])
        for record in records:
            yield record, attempts[record.key]
        last = records[-1].key


def ndjson(connection: Connection, project_key: int, only: RecordFilter | None = None) -> Iterator[str]:
    """One line of JSON per record, with trace and measurements; lines end with a newline."""
    for record, attempts in stream(connection, project_key, only):
        line = {
            "record": record.id,
            "target": record.target_id,
            "workload": record.workload_sha256,
            "workload_name": record.workload_name,
            "tvm_version": record.tvm_version,
            "schedule": record.schedule_sha256,
            "status": record.status,
            "latency_s": record.latency_s,
            "quality": record.quality,
            "invalidity": record.invalidity,
            "source": record.source,
            "created_at": record.created_at,
            "trace": record.trace,
            "measurements": [
                {
                    "latencies_s": attempt.latencies_s,
                    "quality": attempt.quality,
                    "status": attempt.status,
                    "invalidity": attempt.invalidity,
                    "detail": attempt.detail,
                    "conditions": attempt.conditions,
                    "measured_at": attempt.measured_at,
                }
                for attempt in attempts
            ],
        }
        yield json.dumps(line, separators=(",", ":")) + "\n"


def audit_sample(connection: Connection, target_key: int, count: int, seed: int) -> list[AuditCandidate]:
    """`count` stored full measurements of the target, drawn at random: first among the best of each workload, then
    among the second best, and so on when there are fewer workloads than that."""
    place = (
        func.row_number().over(partition_by=Record.workload_key, order_by=(Record.latency_s, Record.key)).label("place")
    )
    rows = connection.execute(
        select(place, Record.key).where(Record.target_key == target_key, BEST_RECORDS, Record.quality == FULL)
    ).all()
    draw = random.Random(seed)
    chosen = [key for _, _, key in sorted((row.place, draw.random(), row.key) for row in rows)[:count]]
    found: Any = connection.execute(
        select(
            Record.key, Record.id, Record.workload_key, Record.schedule_sha256, Record.latency_s, Record.trace
        ).where(Record.key.in_(chosen))
    )
    return [AuditCandidate(row[0], row[1], row[2], row[3].hex(), row[4], row[5]) for row in found]


def stale_bests(connection: Connection, target_key: int, before: float, limit: int) -> list[AuditCandidate]:
    """The best full record of each workload of the target that was last measured before, longest ago first."""
    place = func.row_number().over(partition_by=Record.workload_key, order_by=(Record.latency_s, Record.key))
    ranked = select(Record.key, place.label("place")).where(
        Record.target_key == target_key, BEST_RECORDS, Record.quality == FULL
    )
    table = ranked.subquery()
    bests = select(table.c.key).where(table.c.place == 1)
    last = func.max(Measurement.measured_at)
    rows: Any = connection.execute(
        select(Record.key, Record.id, Record.workload_key, Record.schedule_sha256, Record.latency_s, Record.trace)
        .join(Measurement, Measurement.record_key == Record.key)
        .where(Record.key.in_(bests))
        .group_by(Record.key)
        .having(last < before)
        .order_by(last, Record.key)
        .limit(limit)
    )
    return [AuditCandidate(row[0], row[1], row[2], row[3].hex(), row[4], row[5]) for row in rows]


def count(connection: Connection, target_key: int | None = None) -> dict[str, int]:
    """How many records there are of each status."""
    query = select(Record.status, func.count()).group_by(Record.status)
    if target_key is not None:
        query = query.where(Record.target_key == target_key)
    return {row[0]: row[1] for row in connection.execute(query)}


def _rows(project_key: int, only: RecordFilter) -> AnySelect:
    query = (
        select(
            Record.key,
            Record.id,
            Target.id.label("target_id"),
            Workload.id.label("workload_id"),
            Workload.sha256.label("workload_sha256"),
            Workload.name.label("workload_name"),
            Workload.tvm_version,
            Record.schedule_sha256,
            Record.module_sha256,
            Record.status,
            Record.latency_s,
            Record.quality,
            Record.invalidity,
            Record.permanent,
            Record.transient_failures,
            Record.measurement_count,
            Record.source,
            Record.visibility,
            CostModel.id.label("cost_model"),
            Record.withdrawn_reason,
            Record.created_at,
            Record.updated_at,
            Record.trace.label("packed_trace"),
        )
        .join(Target, Target.key == Record.target_key)
        .join(Workload, Workload.key == Record.workload_key)
        .outerjoin(CostModel, CostModel.key == Record.model_key)
        .where(or_(Record.visibility == "shared", Record.origin_project_key == project_key))
    )
    equal = {
        Record.target_key: only.target_key,
        Record.workload_key: only.workload_key,
        Record.quality: only.quality,
        Record.source: only.source,
    }
    query = query.where(*(column == value for column, value in equal.items() if value is not None))
    # Withdrawn records are shown only to those who ask for them.
    query = query.where(Record.status == only.status if only.status else Record.status != Status.WITHDRAWN)
    if only.network_id is not None:
        tasks = select(NetworkTask.workload_key).where(NetworkTask.network_id == only.network_id)
        query = query.where(Record.workload_key.in_(tasks))
    if only.target_keys:
        query = query.where(Record.target_key.in_(only.target_keys))
    if only.operators:
        words = literal("_").concat(Workload.name).concat("_")
        query = query.where(or_(*(words.contains(f"_{operator}_", autoescape=True) for operator in only.operators)))
    if only.since is not None:
        query = query.where(Record.updated_at >= only.since)
    query = query.where(*(_measured_by_job(key, value) for key, value in only.job_labels))
    if only.measured:
        query = query.where(Record.latency_s.is_not(None))
    if only.failed:
        query = query.where(Record.latency_s.is_(None))
    return query


def _measured_by_job(key: str, value: str) -> ColumnElement[bool]:
    return exists(
        select(Measurement.key)
        .join(Step, Step.key == Measurement.step_key)
        .join(Label, Label.resource == Step.job_id)
        .where(Measurement.record_key == Record.key, Label.key == key, Label.value == value)
        .correlate(Record)
    )


def _record(row: Any) -> RecordRow:
    values = dict(row._mapping)
    for name in ("workload_sha256", "schedule_sha256", "module_sha256"):
        values[name] = hex_or_none(values[name])
    return RecordRow(**values)
