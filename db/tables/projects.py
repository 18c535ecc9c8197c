"""Projects, who may enter them, and what is remembered of their requests."""

from __future__ import annotations

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.ids import ID_LENGTH
from crosstune.db.tables.base import Base, Hash, Json, Key, Moment, Name, ProjectId, PublicId, Word


class Project(Base):
    """`default` exists from the first migration on and is the project of a service without keys."""

    __tablename__ = "projects"
    key: Mapped[Key]
    id: Mapped[str] = mapped_column(String(ID_LENGTH), unique=True)
    name: Mapped[Name] = mapped_column(unique=True)
    created_at: Mapped[Moment]


class ApiKey(Base):
    """Only the hash of a key is kept; `scopes` is a list of words."""

    __tablename__ = "api_keys"
    id: Mapped[PublicId]
    project_id: Mapped[ProjectId] = mapped_column(index=True)
    name: Mapped[Name]
    secret_sha256: Mapped[Hash] = mapped_column(unique=True)
    scopes: Mapped[Json]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]
    last_used_at: Mapped[Moment | None]


class IdempotencyKey(Base):
    """`state` is running until the answer is stored; the row may be forgotten after `expires_at`."""

    __tablename__ = "idempotency_keys"
    project_id: Mapped[ProjectId] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[Hash]
    state: Mapped[Word]
    status_code: Mapped[int | None]
    answer: Mapped[Json | None]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment] = mapped_column(index=True)


class Label(Base):
    """Free words on any resource; `resource` is its public id."""

    __tablename__ = "labels"
    project_id: Mapped[ProjectId] = mapped_column(primary_key=True)
    resource: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(String(200))

    __table_args__ = (Index("ix_labels_project_id_key_value", "project_id", "key", "value"),)


class Audit(Base):
    """Who did what to which resource; never changed."""

    __tablename__ = "audit"
    key: Mapped[Key]
    project_id: Mapped[ProjectId] = mapped_column(index=True)
    principal: Mapped[Name]
    action: Mapped[Word]
    resource: Mapped[str] = mapped_column(String(ID_LENGTH), index=True)
    note: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[Json | None]
    created_at: Mapped[Moment]
