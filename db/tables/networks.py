"""Networks as users submit them, and the workloads that they are cut into."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.tables.base import (
    ArtifactId,
    Base,
    Hash,
    Json,
    Key,
    Moment,
    Name,
    NetworkId,
    ProjectId,
    PublicId,
    UniqueId,
    Word,
    WorkloadKey,
)


class Network(Base):
    """`state` is importing, ready or refused; a refusal is `{code, detail, facts}`.

    The same bytes with other `shapes` are another network. `graph_key` ignores weights; it is known once ready.
    A deleted network keeps its row for the jobs that name it, and loses its bytes.
    """

    __tablename__ = "networks"
    id: Mapped[PublicId]
    project_id: Mapped[ProjectId]
    name: Mapped[Name]
    content_sha256: Mapped[Hash]
    shapes_sha256: Mapped[Hash]
    shapes: Mapped[Json]
    """Sizes given for dynamic inputs: `{input: [sizes]}`."""
    graph_key: Mapped[Hash | None] = mapped_column(index=True)
    state: Mapped[Word]
    refusal: Mapped[Json | None]
    inputs: Mapped[Json | None]
    """`[[name, dtype, [sizes]], …]`, like `outputs`."""
    outputs: Mapped[Json | None]
    layout: Mapped[str | None] = mapped_column(String(40))
    layout_note: Mapped[str | None] = mapped_column(Text)
    synthetic_weights: Mapped[bool] = mapped_column(default=False)
    pipeline_version: Mapped[int | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    artifact_id: Mapped[ArtifactId | None]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    deleted_at: Mapped[Moment | None]

    __table_args__ = (
        Index(
            "uq_networks_content",
            "project_id",
            "content_sha256",
            "shapes_sha256",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "uq_networks_name",
            "project_id",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


class Workload(Base):
    """One fused subgraph with fixed shapes under one TVM version; `version_free_key` is the same under any."""

    __tablename__ = "workloads"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    sha256: Mapped[Hash] = mapped_column(unique=True)
    version_free_key: Mapped[Hash] = mapped_column(index=True)
    name: Mapped[Name]
    module: Mapped[bytes] = mapped_column(LargeBinary)
    """TVM's JSON of the canonical module, compressed."""
    flops: Mapped[float] = mapped_column(Double)
    args: Mapped[Json]
    """`[[dtype, [sizes]], …]`, outputs last."""
    output_count: Mapped[int]
    tvm_version: Mapped[str] = mapped_column(String(40))
    pipeline_version: Mapped[int]
    created_at: Mapped[Moment]


class NetworkTask(Base):
    """A workload inside a network; `weight` is how often one inference calls it."""

    __tablename__ = "network_tasks"
    network_id: Mapped[NetworkId] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    workload_key: Mapped[WorkloadKey] = mapped_column(index=True)
    weight: Mapped[int]
