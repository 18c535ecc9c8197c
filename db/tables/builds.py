"""What is made: builds, the bytes of all kinds, and cost models."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.ids import ID_LENGTH
from crosstune.db.tables.base import (
    ArtifactId,
    Base,
    CostModelKey,
    Hash,
    JobId,
    Json,
    Key,
    Moment,
    Name,
    NetworkId,
    ProjectId,
    PublicId,
    TargetKey,
    UniqueId,
    Word,
)


class Artifact(Base):
    """Bytes in the artifact store; `owner` is the id of the network, build or cost model they belong to."""

    __tablename__ = "artifacts"
    id: Mapped[PublicId]
    project_id: Mapped[ProjectId] = mapped_column(index=True)
    sha256: Mapped[Hash] = mapped_column(index=True)
    kind: Mapped[Word]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    uri: Mapped[str] = mapped_column(Text)
    owner: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment | None] = mapped_column(index=True)


class Build(Base):
    """An immutable result once its `state` is ready or refused; before that it is building, or failed for good.

    `schedules` pins what was compiled: `[{label, workload, schedule_sha256, …}, …]`.
    Latencies are seconds of one inference; `reference_latency_s` is onnxruntime's.
    """

    __tablename__ = "builds"
    id: Mapped[PublicId]
    project_id: Mapped[ProjectId] = mapped_column(index=True)
    network_id: Mapped[NetworkId] = mapped_column(index=True)
    target_key: Mapped[TargetKey] = mapped_column(index=True)
    job_id: Mapped[JobId | None] = mapped_column(index=True)
    state: Mapped[Word]
    tvm_version: Mapped[str | None] = mapped_column(String(40))
    schedules: Mapped[Json]
    manifest: Mapped[Json | None]
    artifact_id: Mapped[ArtifactId | None]
    tuned_latency_s: Mapped[float | None] = mapped_column(Double)
    untuned_latency_s: Mapped[float | None] = mapped_column(Double)
    reference_latency_s: Mapped[float | None] = mapped_column(Double)
    largest_error: Mapped[float | None] = mapped_column(Double)
    refused: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Moment]
    finished_at: Mapped[Moment | None]


class CostModel(Base):
    """A version of the cost model; `status` is candidate, champion or retired."""

    __tablename__ = "cost_models"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    name: Mapped[Name]
    version: Mapped[int]
    parent_key: Mapped[CostModelKey | None]
    status: Mapped[Word] = mapped_column(index=True)
    data_fingerprint: Mapped[Hash]
    feature_layout: Mapped[int]
    artifact_id: Mapped[ArtifactId | None]
    card: Mapped[Json]
    created_at: Mapped[Moment]

    __table_args__ = (Index("uq_cost_models_version", "name", "version", unique=True),)
