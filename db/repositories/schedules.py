"""What is known of a workload's schedules: the best, those of other targets, and what a round must know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, bindparam, case, func, or_, select, text
from sqlalchemy.orm import aliased

from crosstune.db.codec import digest, hex_or_none, unpack_json
from crosstune.db.judging import CENSORED, FULL, QUICK, Status
from crosstune.db.repositories import workloads
from crosstune.db.tables import Measurement, Record, Target, Workload

BEST_RECORDS = text("records.status = 'valid' AND records.latency_s IS NOT NULL")

UNTRIED = (Status.WITHDRAWN, Status.IMPORTED)
"""Records that say nothing of what was tried here."""


@dataclass(frozen=True, slots=True)
class BestSchedule:
    """The best record of a (target, workload); `workload_key` is the workload that was asked for.

    For a transfer the record belongs to another target or to the same graph under another TVM version; `target_id`,
    `tvm_version` and `source_workload_sha256` say which.
    """

    workload_key: int
    record_key: int
    record_id: str
    target_id: str
    source_workload_sha256: str
    tvm_version: str
    schedule_sha256: str
    latency_s: float
    quality: str
    packed_trace: bytes

    @property
    def trace(self) -> Any:
        """The schedule's trace, read when asked for."""
        return unpack_json(self.packed_trace)


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A schedule with its verdict; `permanent` ones and those with a latency need no further attempt."""

    record_key: int
    schedule_sha256: str
    module_sha256: str | None
    latency_s: float | None
    quality: str | None
    invalidity: str | None
    permanent: bool
    transient_failures: int
    features: bytes | None
    quick_s: float | None
    """With hot caches, where it was measured so undisturbed."""
    packed_trace: bytes

    @property
    def trace(self) -> Any:
        return unpack_json(self.packed_trace)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A schedule of a workload on another target."""

    target_key: int
    latency_s: float
    packed_trace: bytes

    @property
    def trace(self) -> Any:
        return unpack_json(self.packed_trace)


@dataclass(frozen=True, slots=True)
class BestLatency:
    """The best latency of a workload on a target, as `best` judges it."""

    target_key: int
    workload_key: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class Example:
    """A measured program; latencies (seconds, None for a failure) compare only within one `group`."""

    group: str
    features: bytes
    latency_s: float | None


def best(
    connection: Connection, target_key: int, workload_keys: Sequence[int], project_key: int
) -> dict[int, BestSchedule]:
    """The best schedule of each workload on the target, in one query; workloads without one are left out.

    The lowest latency among records with a full measurement; only where there is none, among quick ones.
    """
    wanted = {"target": target_key, "project": project_key, "workloads": workload_keys}
    return {row.workload_key: _best_schedule(row) for row in connection.execute(_BEST, wanted)}


def best_latencies(
    connection: Connection, project_key: int, target_key: int, workload_keys: Sequence[int], limit: int
) -> list[BestLatency]:
    """What is known of any workload on any target, at most `limit`: first of the workloads named (under any TVM), then
    of this target, then what changed last."""

    def lowest(quality: str) -> Any:
        return func.min(case((Record.quality == quality, Record.latency_s)))

    graphs = select(Workload.version_free_key).where(Workload.key.in_(workload_keys))
    named = Record.workload_key.in_(select(Workload.key).where(Workload.version_free_key.in_(graphs)))
    rows = connection.execute(
        select(Record.target_key, Record.workload_key, func.coalesce(lowest(FULL), lowest(QUICK)))
        .where(BEST_RECORDS, Record.quality.in_([FULL, QUICK]), _visible(project_key))
        .group_by(Record.target_key, Record.workload_key)
        .order_by(named.desc(), (Record.target_key == target_key).desc(), func.max(Record.updated_at).desc())
        .limit(limit)
    )
    return [BestLatency(*row) for row in rows]


def tried(connection: Connection, target_key: int, workload_keys: Sequence[int]) -> dict[int, int]:
    """How many schedules of each workload were tried on the target, whoever tried them and whatever came of it."""
    rows = connection.execute(
        select(Record.workload_key, func.count())
        .where(
            Record.target_key == target_key,
            Record.workload_key.in_(workload_keys),
            Record.status.not_in(UNTRIED),
        )
        .group_by(Record.workload_key)
    )
    counts = {row[0]: row[1] for row in rows}
    return {key: counts.get(key, 0) for key in workload_keys}


def defaults(connection: Connection, target_key: int, workload_keys: Sequence[int]) -> dict[int, float]:
    """Latency in seconds of what each workload gets without any search, where that was measured."""
    rows = connection.execute(
        select(Record.workload_key, Record.quality, Record.latency_s).where(
            Record.target_key == target_key,
            Record.workload_key.in_(workload_keys),
            text("records.source = 'default'"),
            BEST_RECORDS,
            Record.quality.in_([FULL, QUICK]),
        )
    )
    # Full ones come last, so that they win over quick ones; among equals the lowest.
    ordered = sorted(rows, key=lambda row: (row.quality == FULL, -(row.latency_s or 0.0)))
    return {row.workload_key: row.latency_s for row in ordered if row.latency_s is not None}


def transferred(
    connection: Connection, target_key: int, workload_keys: Sequence[int], project_key: int
) -> dict[int, BestSchedule]:
    """For each workload the best schedule of the same compute graph elsewhere: the same target with another TVM first,
    then the target that measured most lately. Latencies of other targets do not tell what this one will reach."""
    wanted, same = aliased(Workload), aliased(Workload)
    candidate = _best_key(project_key, Record.target_key == Target.key, Record.workload_key == same.key)
    pairs = (
        select(wanted.key.label("workload_key"), candidate.label("record_key"))
        .join(same, same.version_free_key == wanted.version_free_key)
        .join(Target, or_(Target.key != target_key, same.key != wanted.key))
        .where(wanted.key.in_(workload_keys))
        .subquery()
    )
    rows = connection.execute(
        _best_columns(pairs.c.workload_key)
        .join_from(pairs, Record, Record.key == pairs.c.record_key)
        .join(Workload, Workload.key == Record.workload_key)
        .join(Target, Target.key == Record.target_key)
        .order_by((Record.target_key == target_key).desc(), Record.updated_at.desc())
    )
    found: dict[int, BestSchedule] = {}
    for row in rows:
        found.setdefault(row.workload_key, _best_schedule(row))
    return found


def unmeasured(connection: Connection, target_key: int, project_key: int, limit: int) -> list[int]:
    """Keys of workloads that other targets have measured and this one has not, those that changed last first."""
    here = aliased(Record)
    known = select(here.key).where(
        here.target_key == target_key, here.workload_key == Record.workload_key, here.status != Status.IMPORTED
    )
    rows = connection.execute(
        select(Record.workload_key)
        .where(
            Record.target_key != target_key,
            BEST_RECORDS,
            Record.quality.in_([FULL, QUICK]),
            _visible(project_key),
            ~known.exists(),
        )
        .group_by(Record.workload_key)
        .order_by(func.max(Record.updated_at).desc(), Record.workload_key)
        .limit(limit)
    )
    return list(rows.scalars())


def seeds(
    connection: Connection, target_key: int, workload_key: int, project_key: int, per_pair: int, limit: int
) -> list[BestSchedule]:
    """Good schedules of the same compute graph on other targets or under other TVM versions, to start a search from:
    the `per_pair` fastest of each (target, workload), the best of each pair first. Those that were imported are among
    them, also of this target and workload: nobody here has tried them."""
    wanted = select(Workload.version_free_key).where(Workload.key == workload_key).scalar_subquery()
    place = (
        func.row_number()
        .over(partition_by=(Record.target_key, Record.workload_key), order_by=(Record.quality, Record.latency_s))
        .label("place")
    )
    ranked = (
        select(Record.key, place)
        .join(Workload, Workload.key == Record.workload_key)
        .where(
            Workload.version_free_key == wanted,
            or_(
                and_(BEST_RECORDS, or_(Record.target_key != target_key, Record.workload_key != workload_key)),
                and_(Record.status == Status.IMPORTED, Record.latency_s.is_not(None)),
            ),
            Record.quality.in_([FULL, QUICK]),
            _visible(project_key),
        )
        .subquery()
    )
    rows = connection.execute(
        _best_columns(Workload.key)
        .join_from(ranked, Record, Record.key == ranked.c.key)
        .join(Workload, Workload.key == Record.workload_key)
        .join(Target, Target.key == Record.target_key)
        .where(ranked.c.place <= per_pair)
        .order_by(ranked.c.place, Record.key.desc())
        .limit(limit)
    )
    return [_best_schedule(row) for row in rows]


def near(
    connection: Connection, target_key: int, workload_key: int, project_key: int, most: int, per_workload: int
) -> list[BestSchedule]:
    """Good schedules of the `most` workloads that are most like this one and have some: the same operators on other
    sizes. The `per_workload` fastest of each on this target, on others where there are none, the most alike first."""
    wanted = workloads.get_by_key(connection, workload_key)
    row_number = func.row_number().over(
        partition_by=Record.workload_key, order_by=(Record.target_key != target_key, Record.quality, Record.latency_s)
    )
    ranked = (
        select(Record.key, Record.workload_key, Workload.args, row_number.label("place"))
        .join(Workload, Workload.key == Record.workload_key)
        .where(
            Workload.name == wanted.name,
            Workload.version_free_key != digest(wanted.version_free_key),
            Workload.pipeline_version == wanted.pipeline_version,
            BEST_RECORDS,
            Record.quality.in_([FULL, QUICK]),
            _visible(project_key),
        )
        .subquery()
    )
    rows = list(connection.execute(select(ranked).where(ranked.c.place <= per_workload)))
    distances = {row.workload_key: unlikeness(row.args, wanted.args) for row in rows}
    nearest = sorted((far, key) for key, far in distances.items() if far < math.inf)[:most]
    order = {key: place for place, (_, key) in enumerate(nearest)}
    chosen = {row.key: (order[row.workload_key], row.place) for row in rows if row.workload_key in order}
    found = connection.execute(
        _best_columns(Workload.key)
        .join_from(Record, Workload, Workload.key == Record.workload_key)
        .join(Target, Target.key == Record.target_key)
        .where(Record.key.in_(chosen))
    )
    return [_best_schedule(row) for row in sorted(found, key=lambda row: chosen[row.record_key])]


def unlikeness(one: Any, other: Any) -> float:
    """How far apart the sizes of two workloads' arguments are, in powers of two summed over all; infinite where they
    have other types or numbers of dimensions. `[[dtype, [sizes]], …]` each."""
    if [(dtype, len(sizes)) for dtype, sizes in one] != [(dtype, len(sizes)) for dtype, sizes in other]:
        return math.inf
    pairs = zip(one, other, strict=True)
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for x, y in pairs for a, b in zip(x[1], y[1], strict=True))


def known(connection: Connection, target_key: int, workload_key: int, feature_layout: int | None) -> list[KnownRecord]:
    """Every schedule of the workload that was tried on the target, whoever tried it, best first, failures last.

    With `feature_layout` each has the features of that layout where they are stored.
    """
    features = aliased(Measurement)
    rows: Any = connection.execute(
        select(
            Record.key,
            Record.schedule_sha256,
            Record.module_sha256,
            Record.latency_s,
            Record.quality,
            Record.invalidity,
            Record.permanent,
            Record.transient_failures,
            features.features,
            _quick_s(),
            Record.trace,
        )
        .outerjoin(features, _features_of(features, feature_layout))
        .where(
            Record.target_key == target_key,
            Record.workload_key == workload_key,
            Record.status.not_in(UNTRIED),
        )
        .order_by(Record.latency_s.is_(None), Record.latency_s, Record.key)
    )
    return [KnownRecord(row[0], row[1].hex(), hex_or_none(row[2]), *row[3:]) for row in rows]


def known_hashes(connection: Connection, target_key: int, workload_key: int) -> set[str]:
    """Identities of all schedules of the workload that have a record on the target, whatever it says."""
    rows = connection.execute(
        select(Record.schedule_sha256).where(Record.target_key == target_key, Record.workload_key == workload_key)
    )
    return {value.hex() for value in rows.scalars()}


def elsewhere(
    connection: Connection, target_key: int, workload_key: int, project_key: int, limit: int
) -> list[Elsewhere]:
    """Schedules of the same compute graph on other targets, slow ones too: at most `limit` of each target, taken evenly
    from the fastest to the slowest. Latencies with hot caches where there are some, so that they compare."""
    wanted = select(Workload.version_free_key).where(Workload.key == workload_key).scalar_subquery()
    latency_s = func.coalesce(_quick_s(), Record.latency_s)
    by_target: Any = {"partition_by": Record.target_key}
    ranked = (
        select(
            Record.key,
            latency_s.label("latency_s"),
            func.row_number().over(**by_target, order_by=(latency_s, Record.key)).label("place"),
            func.count().over(**by_target).label("count"),
        )
        .join(Workload, Workload.key == Record.workload_key)
        .where(
            Workload.version_free_key == wanted,
            Record.target_key != target_key,
            BEST_RECORDS,
            Record.quality.in_([FULL, QUICK]),
            _visible(project_key),
        )
        .subquery()
    )
    every = (ranked.c.count + limit - 1) // limit
    rows = connection.execute(
        select(Record.target_key, ranked.c.latency_s, Record.trace)
        .join(ranked, ranked.c.key == Record.key)
        .where((ranked.c.place - 1) % every == 0)
        .order_by(Record.target_key, ranked.c.place)
    )
    return [Elsewhere(*row) for row in rows]


def examples(connection: Connection, target_key: int, feature_layout: int, limit: int) -> list[Example]:
    """The newest `limit` programs measured on the target that have features of this layout, newest first.

    Latencies that are only lower bounds are left out; so are failures that may not be the program's own.
    """
    rows = connection.execute(
        select(Workload.sha256, Measurement.features, func.coalesce(_quick_s(), Record.latency_s))
        .join(Record, Record.workload_key == Workload.key)
        .join(Measurement, _features_of(Measurement, feature_layout))
        .where(
            Record.target_key == target_key,
            Record.status.not_in(UNTRIED),
            or_(
                and_(Record.latency_s.is_not(None), Record.quality != CENSORED),
                and_(Record.permanent, Record.transient_failures == 0),
            ),
        )
        .order_by(Record.key.desc())
        .limit(limit)
    )
    return [Example(row[0].hex(), row[1], row[2]) for row in rows if row[1] is not None]


def _quick_s() -> Any:
    """A record's latency with hot caches, the mean of its measurements: null where none was undisturbed."""
    quick = aliased(Measurement)
    return (
        select(func.avg(quick.latency_s))
        .where(quick.record_key == Record.key, quick.quality == QUICK, quick.status == Status.VALID)
        .correlate(Record)
        .scalar_subquery()
    )


def _features_of(measurement: Any, feature_layout: int | None) -> ColumnElement[bool]:
    return and_(
        measurement.record_key == Record.key,
        measurement.features.is_not(None),
        measurement.feature_layout == feature_layout,
    )


def _visible(project_key: int | BindParameter[int]) -> ColumnElement[bool]:
    return or_(Record.visibility == "shared", Record.origin_project_key == project_key)


def _best_key(project_key: int | BindParameter[int], *pair: ColumnElement[bool]) -> ColumnElement[Any]:
    """Key of the best record of a pair: two look-ups in the partial index `ix_records_best`."""

    def lowest(quality: str) -> Any:
        # The words of the partial index, not bound values: SQLite uses the index only for a condition that it can read.
        return (
            select(Record.key)
            .where(*pair, BEST_RECORDS, Record.quality == quality, _visible(project_key))
            .order_by(Record.latency_s)
            .limit(1)
            .correlate_except(Record)
            .scalar_subquery()
        )

    return func.coalesce(lowest(FULL), lowest(QUICK))


def _best_columns(workload_key: Any) -> Any:
    return select(
        workload_key.label("workload_key"),
        Record.key.label("record_key"),
        Record.id.label("record_id"),
        Target.id.label("target_id"),
        Workload.sha256,
        Workload.tvm_version,
        Record.schedule_sha256,
        Record.latency_s,
        Record.quality,
        Record.trace,
    )


def _best_schedule(row: Any) -> BestSchedule:
    return BestSchedule(
        row.workload_key,
        row.record_key,
        row.record_id,
        row.target_id,
        row.sha256.hex(),
        row.tvm_version,
        row.schedule_sha256.hex(),
        row.latency_s,
        row.quality,
        row.trace,
    )


_BEST = (
    _best_columns(Workload.key)
    .join_from(
        Workload,
        Record,
        Record.key
        == _best_key(
            bindparam("project"), Record.target_key == bindparam("target"), Record.workload_key == Workload.key
        ),
    )
    .join(Target, Target.key == Record.target_key)
    .where(Workload.key.in_(bindparam("workloads", expanding=True)))
)
