"""Jobs, their tasks, the steps that do the work, and what happened."""

from __future__ import annotations

from sqlalchemy import Double, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.ids import ID_LENGTH
from crosstune.db.tables.base import (
    BIG,
    Base,
    JobId,
    Json,
    Key,
    Moment,
    NetworkId,
    ProjectId,
    PublicId,
    Seconds,
    TargetKey,
    UniqueId,
    Word,
    WorkloadKey,
)


class Job(Base):
    """Tune a network for a target within a budget; states and moves are `repositories.jobs.JOB_TRANSITIONS`.

    `event_sequence` is the number of the job's latest event, taken under this row's lock.
    """

    __tablename__ = "jobs"
    id: Mapped[PublicId]
    project_id: Mapped[ProjectId] = mapped_column(index=True)
    network_id: Mapped[NetworkId] = mapped_column(index=True)
    target_key: Mapped[TargetKey] = mapped_column(index=True)
    state: Mapped[Word] = mapped_column(index=True)
    priority: Mapped[int] = mapped_column(default=0)
    budget_trials: Mapped[int | None]
    budget_s: Mapped[float | None] = mapped_column(Double)
    trials: Mapped[int] = mapped_column(default=0)
    """Trials used so far, out of `budget_trials`."""
    searched_s: Mapped[Seconds] = mapped_column(default=0.0)
    """Seconds used so far, out of `budget_s`."""
    deadline: Mapped[Moment | None]
    seed: Mapped[int] = mapped_column(BIG, default=0)
    options: Mapped[Json | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    stop_reason: Mapped[str | None] = mapped_column(String(100))
    message: Mapped[str] = mapped_column(Text, default="")
    untuned_latency_s: Mapped[float | None] = mapped_column(Double)
    best_latency_s: Mapped[float | None] = mapped_column(Double)
    build_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    event_sequence: Mapped[int] = mapped_column(BIG, default=0)
    created_at: Mapped[Moment]
    started_at: Mapped[Moment | None]
    ended_at: Mapped[Moment | None]
    updated_at: Mapped[Moment]


class Task(Base):
    """A workload inside a job. Latencies are seconds of one call; `searched_s` is what its rounds took."""

    __tablename__ = "tasks"
    key: Mapped[Key]
    job_id: Mapped[JobId]
    position: Mapped[int]
    workload_key: Mapped[WorkloadKey] = mapped_column(index=True)
    weight: Mapped[int]
    trials: Mapped[int] = mapped_column(default=0)
    rounds: Mapped[int] = mapped_column(default=0)
    searched_s: Mapped[Seconds] = mapped_column(default=0.0)
    best_latency_s: Mapped[float | None] = mapped_column(Double)
    default_latency_s: Mapped[float | None] = mapped_column(Double)
    exhausted: Mapped[bool] = mapped_column(default=False)
    history: Mapped[Json]
    """`[[trials, searched_s, best_latency_s], …]` after each round."""

    __table_args__ = (
        Index("uq_tasks_position", "job_id", "position", unique=True),
        Index("uq_tasks_workload", "job_id", "workload_key", unique=True),
    )


class Step(Base):
    """The unit of durable work, of any kind.

    `state` is queued, running, done, failed or cancelled. (`owner`, `attempt`) is the fencing token: `attempt` grows
    with every claim and never shrinks; `released` counts the claims that were given back, which do not count as tried;
    `expired` those whose lease passed, because their worker died or could not reach the database.
    The message queue carries ids only: a lost, doubled or late message never matters.
    """

    __tablename__ = "steps"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    kind: Mapped[Word]
    queue: Mapped[str] = mapped_column(String(100))
    state: Mapped[Word]
    project_id: Mapped[ProjectId]
    job_id: Mapped[JobId | None] = mapped_column(index=True)
    target_key: Mapped[TargetKey | None]
    workload_key: Mapped[WorkloadKey | None]
    priority: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    released: Mapped[int] = mapped_column(default=0)
    expired: Mapped[int] = mapped_column(default=0, server_default="0")
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[Moment] = mapped_column(default=0.0)
    not_before: Mapped[Moment] = mapped_column(default=0.0)
    announced_until: Mapped[Moment] = mapped_column(default=0.0)
    last_exit: Mapped[str | None] = mapped_column(Text)
    input: Mapped[Json]
    subject: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    """What it works on (a network, build, device or target): what else fails when the step fails for good."""
    created_at: Mapped[Moment]
    started_at: Mapped[Moment | None]
    ended_at: Mapped[Moment | None]

    __table_args__ = (
        # What the sweeper reads: live rows only, however many are done.
        Index(
            "ix_steps_live",
            "state",
            "announced_until",
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        # One live round per (target, workload) in the whole system, whatever job it belongs to.
        Index(
            "uq_steps_live_round",
            "target_key",
            "workload_key",
            unique=True,
            sqlite_where=text("state = 'running' AND kind = 'round'"),
            postgresql_where=text("state = 'running' AND kind = 'round'"),
        ),
    )


class Event(Base):
    """Something that became true of a job; `sequence` counts from 1 without gaps within the job."""

    __tablename__ = "events"
    job_id: Mapped[JobId] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BIG, primary_key=True)
    project_id: Mapped[ProjectId]
    kind: Mapped[Word]
    data: Mapped[Json]
    created_at: Mapped[Moment] = mapped_column(index=True)
