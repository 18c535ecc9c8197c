"""Measurements in, verdicts out: storing a batch, judging its records anew, withdrawing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, update

from crosstune.db.codec import digest, digest_or_none, pack_json
from crosstune.db.engine import stamp
from crosstune.db.ids import Prefix, new_id
from crosstune.db.judging import Evidence, Status, Verdict, judge
from crosstune.db.repositories.inserting import insert_missing
from crosstune.db.tables import Measurement, Record

SHARED, PROJECT = "shared", "project"
_CHUNK = 500
"""Keys in one IN list."""


@dataclass(frozen=True, slots=True)
class NewMeasurement:
    """One attempt: `latencies_s` has one value per repeat and is empty when there is an `invalidity`."""

    latencies_s: tuple[float, ...]
    quality: str
    status: str = Status.VALID
    invalidity: str | None = None
    detail: str = ""
    conditions: dict[str, Any] | None = None
    device_key: int | None = None
    worker_key: int | None = None
    step_key: int | None = None
    attempt: int = 1
    measured_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """A schedule with its new measurements; hashes are hexadecimal, `trace` any JSON value."""

    schedule_sha256: str
    trace: Any
    measurements: tuple[NewMeasurement, ...]
    module_sha256: str | None = None
    features: bytes | None = None
    feature_layout: int | None = None
    predicted_score: float | None = None
    source: str = "search"
    source_record_key: int | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The verdict after storing."""

    key: int
    id: str
    schedule_sha256: str
    verdict: Verdict


def store(
    connection: Connection,
    *,
    target_key: int,
    workload_key: int,
    candidates: Sequence[NewCandidate],
    project_key: int,
    visibility: str = SHARED,
    model_key: int | None = None,
    now: float | None = None,
) -> list[StoredRecord]:
    """Add measurements of schedules of one workload on one target and judge their records anew.

    A schedule that is known already keeps its record, its trace, source and project, and gains the measurements; a
    private record becomes shared when another project finds the same schedule and shares it.
    Features are kept once per record and layout. Returns the records in the order of `candidates`, each once.
    """
    at = stamp(now)
    unique = {candidate.schedule_sha256: candidate for candidate in candidates}
    rows = [
        {
            "id": new_id(Prefix.RECORD),
            "target_key": target_key,
            "workload_key": workload_key,
            "schedule_sha256": digest(schedule),
            "module_sha256": digest_or_none(candidate.module_sha256),
            "trace": pack_json(candidate.trace),
            "status": Status.PROVISIONAL,
            "source": candidate.source,
            "source_record_key": candidate.source_record_key,
            "origin_project_key": project_key,
            "visibility": visibility,
            "model_key": model_key,
            "predicted_score": candidate.predicted_score,
            "created_at": at,
            "updated_at": at,
        }
        for schedule, candidate in sorted(unique.items())
    ]
    insert_missing(connection, Record, rows)
    known = _lock(connection, target_key, workload_key, list(unique))
    keys = [known[schedule][0] for schedule in unique]
    if visibility == SHARED:
        private = (Record.key.in_(keys), Record.visibility != SHARED, Record.origin_project_key != project_key)
        connection.execute(update(Record).where(*private).values(visibility=SHARED))
    _add_measurements(connection, candidates, {schedule: key for schedule, (key, _) in known.items()}, at)
    verdicts = rejudge(connection, keys, now)
    return [StoredRecord(*known[schedule], schedule, verdicts[known[schedule][0]]) for schedule in unique]


def _lock(
    connection: Connection, target_key: int, workload_key: int, schedules: Sequence[str]
) -> dict[str, tuple[int, str]]:
    """(key, id) of the records by schedule, locked so that their verdicts see each other's measurements."""
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(schedules), _CHUNK):
        hashes = [digest(schedule) for schedule in schedules[start : start + _CHUNK]]
        rows = connection.execute(
            select(Record.schedule_sha256, Record.key, Record.id)
            .where(
                Record.target_key == target_key,
                Record.workload_key == workload_key,
                Record.schedule_sha256.in_(hashes),
            )
            .order_by(Record.key)
            .with_for_update(key_share=True)
        )
        found |= {schedule.hex(): (key, record_id) for schedule, key, record_id in rows}
    return found


def _add_measurements(
    connection: Connection, candidates: Sequence[NewCandidate], keys: dict[str, int], at: float
) -> None:
    featured = _with_features(connection, list(keys.values()))
    rows: list[dict[str, Any]] = []
    for candidate in candidates:
        key = keys[candidate.schedule_sha256]
        for one in candidate.measurements:
            fresh = candidate.features is not None and (key, candidate.feature_layout) not in featured
            featured.add((key, candidate.feature_layout))
            rows.append(
                {
                    "record_key": key,
                    "device_key": one.device_key,
                    "worker_key": one.worker_key,
                    "step_key": one.step_key,
                    "attempt": one.attempt,
                    "conditions": one.conditions or {},
                    "latencies": list(one.latencies_s),
                    "latency_s": median(one.latencies_s) if one.latencies_s and one.invalidity is None else None,
                    "quality": one.quality,
                    "status": one.status,
                    "invalidity": one.invalidity,
                    "detail": one.detail,
                    "features": candidate.features if fresh else None,
                    "feature_layout": candidate.feature_layout if fresh else None,
                    "measured_at": at if one.measured_at is None else one.measured_at,
                }
            )
    if rows:
        connection.execute(insert(Measurement), rows)


def _with_features(connection: Connection, keys: Sequence[int]) -> set[tuple[int, int | None]]:
    found: set[tuple[int, int | None]] = set()
    for start in range(0, len(keys), _CHUNK):
        rows = connection.execute(
            select(Measurement.record_key, Measurement.feature_layout).where(
                Measurement.record_key.in_(keys[start : start + _CHUNK]), Measurement.features.is_not(None)
            )
        )
        found |= {(row.record_key, row.feature_layout) for row in rows}
    return found


def rejudge(connection: Connection, record_keys: Sequence[int], now: float | None = None) -> dict[int, Verdict]:
    """Compute the verdicts of these records from all their measurements and store them."""
    evidence: dict[int, list[Evidence]] = {key: [] for key in record_keys}
    for start in range(0, len(record_keys), _CHUNK):
        rows = connection.execute(
            select(
                Measurement.record_key,
                Measurement.latency_s,
                Measurement.quality,
                Measurement.status,
                Measurement.invalidity,
            )
            .where(Measurement.record_key.in_(record_keys[start : start + _CHUNK]))
            .order_by(Measurement.key)
        )
        for row in rows:
            evidence[row.record_key].append(Evidence(*row[1:]))
    verdicts = {key: judge(measurements) for key, measurements in evidence.items()}
    if verdicts:
        connection.execute(
            update(Record)
            .where(Record.key == bindparam("record_key"))
            .values(
                status=bindparam("new_status"),
                latency_s=bindparam("new_latency_s"),
                quality=bindparam("new_quality"),
                invalidity=bindparam("new_invalidity"),
                permanent=bindparam("new_permanent"),
                transient_failures=bindparam("new_transient_failures"),
                measurement_count=bindparam("new_measurement_count"),
                updated_at=bindparam("new_updated_at"),
            ),
            [
                {
                    "record_key": key,
                    "new_status": verdict.status,
                    "new_latency_s": verdict.latency_s,
                    "new_quality": verdict.quality,
                    "new_invalidity": verdict.invalidity,
                    "new_permanent": verdict.permanent,
                    "new_transient_failures": verdict.transient_failures,
                    "new_measurement_count": len(evidence[key]),
                    "new_updated_at": stamp(now),
                }
                for key, verdict in verdicts.items()
            ],
        )
    return verdicts


def withdraw(
    connection: Connection, record_ids: Sequence[str], reason: str, project_key: int, now: float | None = None
) -> list[str]:
    """Take back what a project measured; returns the ids that were found. A later measurement revives a record."""
    found = connection.execute(
        select(Record.key, Record.id)
        .where(Record.id.in_(record_ids), Record.origin_project_key == project_key)
        .order_by(Record.key)
        .with_for_update(key_share=True)
    ).all()
    keys = [row.key for row in found]
    connection.execute(update(Measurement).where(Measurement.record_key.in_(keys)).values(status=Status.WITHDRAWN))
    connection.execute(update(Record).where(Record.key.in_(keys)).values(withdrawn_reason=reason))
    rejudge(connection, keys, now)
    return [row.id for row in found]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who measured, and when; null means any."""

    device_key: int | None = None
    worker_key: int | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was taken back: how many measurements, of how many records, and when the first of them was made."""

    measurements: int
    records: int
    first_measured_at: float | None


def withdraw_from(connection: Connection, origin: Origin, reason: str, now: float | None = None) -> Withdrawn:
    """Take back what somebody measured and judge its records anew; one that nothing else speaks for is withdrawn."""
    rows = connection.execute(
        select(Measurement.key, Measurement.record_key, Measurement.measured_at)
        .where(Measurement.status != Status.WITHDRAWN, *_measured_by(origin))
        .order_by(Measurement.record_key)
    ).all()
    keys = sorted({row.record_key for row in rows})
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        connection.execute(select(Record.key).where(Record.key.in_(part)).order_by(Record.key).with_for_update())
        connection.execute(
            update(Measurement)
            .where(Measurement.record_key.in_(part), Measurement.status != Status.WITHDRAWN, *_measured_by(origin))
            .values(status=Status.WITHDRAWN)
        )
        gone = [key for key, verdict in rejudge(connection, part, now).items() if verdict.status == Status.WITHDRAWN]
        connection.execute(update(Record).where(Record.key.in_(gone)).values(withdrawn_reason=reason))
    return Withdrawn(len(rows), len(keys), min((row.measured_at for row in rows), default=None))


def prune_failed(connection: Connection, before: float) -> int:
    """Forget attempts that failed before; returns how many. The records keep their verdicts."""
    old = (Measurement.invalidity.is_not(None), Measurement.measured_at < before)
    return connection.execute(delete(Measurement).where(*old)).rowcount


def _measured_by(origin: Origin) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if origin.device_key is not None:
        found.append(Measurement.device_key == origin.device_key)
    if origin.worker_key is not None:
        found.append(Measurement.worker_key == origin.worker_key)
    if origin.since is not None:
        found.append(Measurement.measured_at >= origin.since)
    if origin.until is not None:
        found.append(Measurement.measured_at <= origin.until)
    return found
