"""Targets (what a compiler must know), devices (what measures) and workers (what runs steps): all global."""

from __future__ import annotations

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from crosstune.db.tables.base import (
    Base,
    DeviceKey,
    Hash,
    Json,
    Key,
    Moment,
    Name,
    TargetKey,
    UniqueId,
    Word,
)


class Target(Base):
    """`identity` is the sha256 of exactly the fields of `spec`; the name is outside of it."""

    __tablename__ = "targets"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    identity: Mapped[Hash] = mapped_column(unique=True)
    name: Mapped[Name] = mapped_column(unique=True)
    spec: Mapped[Json]
    created_at: Mapped[Moment]


class HardwareFact(Base):
    """One attribute of a target's hardware; `origin` is detected, table or calibrated; the highest version holds."""

    __tablename__ = "hardware_facts"
    key: Mapped[Key]
    target_key: Mapped[TargetKey]
    attribute: Mapped[str] = mapped_column(String(100))
    value: Mapped[Json]
    origin: Mapped[Word]
    version: Mapped[int]
    created_at: Mapped[Moment]

    __table_args__ = (Index("uq_hardware_facts_version", "target_key", "attribute", "version", unique=True),)


class Worker(Base):
    """A process that runs steps. `schema` is the database revision it was written for; `last_seen` its heartbeat."""

    __tablename__ = "workers"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    host: Mapped[Name] = mapped_column(index=True)
    pid: Mapped[int]
    version: Mapped[Word]
    schema: Mapped[Word]
    draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[Moment]
    last_seen: Mapped[Moment] = mapped_column(index=True)
    stopped_at: Mapped[Moment | None]


class Device(Base):
    """A machine's own processor (`local`) or an RPC tracker key (`rpc`); `host` is the machine whose workers reach it.

    `owner`, `attempt` and `lease_until` are the measuring lease: one holder at a time, for all targets of the device.
    `state` is active, paused (no new lease) or draining (no new lease, to be removed).
    """

    __tablename__ = "devices"
    key: Mapped[Key]
    id: Mapped[UniqueId]
    name: Mapped[Name] = mapped_column(unique=True)
    kind: Mapped[Word]
    tracker_key: Mapped[str | None] = mapped_column(String(200))
    host: Mapped[Name]
    state: Mapped[Word]
    owner: Mapped[str | None] = mapped_column(String(200))
    attempt: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[Moment] = mapped_column(default=0.0)
    last_calibration: Mapped[Json | None]
    note: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[Moment]


class DeviceTarget(Base):
    """A target that a device can stand for."""

    __tablename__ = "device_targets"
    device_key: Mapped[DeviceKey] = mapped_column(primary_key=True)
    target_key: Mapped[TargetKey] = mapped_column(primary_key=True, index=True)
