"""What was measured (measurements) and what is therefore believed (records)."""

from __future__ import annotations

from sqlalchemy import Double, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.tables.base import (
    Base,
    CostModelKey,
    DeviceKey,
    Hash,
    Json,
    Key,
    Moment,
    ProjectKey,
    RecordKey,
    StepKey,
    TargetKey,
    UniqueId,
    Word,
    WorkerKey,
    WorkloadKey,
)

_BEST = text("status = 'valid' AND latency_s IS NOT NULL")


class Record(Base):
    """The verdict on one (target, workload, schedule), computed from its measurements by `repositories.records`.

    `status` is valid, provisional (only disturbed or provisional measurements so far), imported or withdrawn.
    `invalidity` says why there is no latency; `permanent` that the schedule is never to be proposed again.
    `source` is search, transfer, default or import; a transfer names its `source_record_key`.
    `visibility` is shared or project; the project is the one that measured it first.
    """

    __tablename__ = "records"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    target_key: Mapped[TargetKey]
    workload_key: Mapped[WorkloadKey]
    schedule_sha256: Mapped[Hash]
    module_sha256: Mapped[Hash | None]
    trace: Mapped[bytes] = mapped_column(LargeBinary)
    """The schedule's trace without post-processing: JSON, compressed."""
    status: Mapped[Word]
    latency_s: Mapped[float | None] = mapped_column(Double)
    quality: Mapped[str | None] = mapped_column(String(40))
    invalidity: Mapped[str | None] = mapped_column(String(40))
    permanent: Mapped[bool] = mapped_column(default=False)
    transient_failures: Mapped[int] = mapped_column(default=0)
    measurement_count: Mapped[int] = mapped_column(default=0)
    source: Mapped[Word]
    source_record_key: Mapped[RecordKey | None]
    origin_project_key: Mapped[ProjectKey]
    visibility: Mapped[Word]
    model_key: Mapped[CostModelKey | None]
    predicted_score: Mapped[float | None] = mapped_column(Double)
    withdrawn_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]

    __table_args__ = (
        Index("uq_records_schedule", "target_key", "workload_key", "schedule_sha256", unique=True),
        # The best-schedule query: quality comes before latency, because a lucky quick run must not hide a full one.
        Index(
            "ix_records_best",
            "target_key",
            "workload_key",
            "quality",
            "latency_s",
            sqlite_where=_BEST,
            postgresql_where=_BEST,
        ),
        # What a workload reaches without any search: a handful of rows among many.
        Index(
            "ix_records_default",
            "target_key",
            "workload_key",
            sqlite_where=text("source = 'default'"),
            postgresql_where=text("source = 'default'"),
        ),
        # Newest first of a target: lists, training examples.
        Index("ix_records_newest", "target_key", "key"),
        Index("ix_records_workload_key", "workload_key"),
    )


class Measurement(Base):
    """One attempt to time a candidate, never changed but for its status.

    `latencies` are seconds, one per repeat; `latency_s` their median, null when there is none. `quality` is quick, full
    or censored (a lower bound); `status` valid, disturbed, provisional, withdrawn or imported.
    `features` are stored once per record and feature layout, beside its first measurement.
    """

    __tablename__ = "measurements"
    key: Mapped[Key]
    record_key: Mapped[RecordKey] = mapped_column(index=True)
    device_key: Mapped[DeviceKey | None]
    worker_key: Mapped[WorkerKey | None]
    step_key: Mapped[StepKey | None] = mapped_column(index=True)
    attempt: Mapped[int]
    """The step's attempt that measured it."""
    conditions: Mapped[Json]
    latencies: Mapped[Json]
    latency_s: Mapped[float | None] = mapped_column(Double)
    quality: Mapped[Word]
    status: Mapped[Word]
    invalidity: Mapped[str | None] = mapped_column(String(40))
    detail: Mapped[str] = mapped_column(Text, default="")
    features: Mapped[bytes | None] = mapped_column(LargeBinary)
    feature_layout: Mapped[int | None]
    measured_at: Mapped[Moment]


class RankingCheck(Base):
    """How the model's order of one measured batch compares with what was measured; `model_key` is null for the shipped
    version. Regrets: how much slower the best of the k that it put first is than the best of the batch, as a share."""

    __tablename__ = "ranking_checks"
    key: Mapped[Key]
    target_key: Mapped[TargetKey]
    workload_key: Mapped[WorkloadKey]
    model_key: Mapped[CostModelKey | None]
    step_key: Mapped[StepKey | None]
    programs: Mapped[int]
    pairwise: Mapped[float] = mapped_column(Double)
    regret_top1: Mapped[float] = mapped_column(Double)
    regret_top5: Mapped[float] = mapped_column(Double)
    checked_at: Mapped[Moment]

    __table_args__ = (Index("ix_ranking_checks_newest", "target_key", "key"),)
