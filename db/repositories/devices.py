"""Devices and their measuring lease: whatever the target, one device measures for one holder at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, or_, select, tuple_, update

from crosstune.db.engine import moment, stamp
from crosstune.db.errors import NotFound, StaleClaim
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.inserting import insert_new
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import Device, DeviceTarget, Target, Worker


class DeviceState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """`owner` holds the device while `lease_until` (UTC seconds) has not passed."""

    key: int
    id: str
    name: str
    kind: str
    tracker_key: str | None
    host: str
    state: DeviceState
    owner: str | None
    lease_until: float
    last_calibration: Any
    created_at: float


@dataclass(frozen=True, slots=True)
class DeviceLease:
    """The right to measure on a device until `lease_until`; (owner, attempt) is its fencing token."""

    device_id: str
    device_key: int
    owner: str
    attempt: int
    lease_until: float


def register(
    connection: Connection,
    *,
    name: str,
    kind: str,
    host: str,
    tracker_key: str | None = None,
    now: float | None = None,
) -> DeviceRow:
    """The device of this name, made when it is new; `kind` is local or rpc, `host` the one whose workers reach it."""
    insert_new(
        connection,
        Device,
        id=new_id(Prefix.DEVICE),
        name=name,
        kind=kind,
        tracker_key=tracker_key,
        host=host,
        state=DeviceState.ACTIVE,
        attempt=0,
        lease_until=0.0,
        note="",
        created_at=stamp(now),
    )
    return get(connection, name)


def stand_for(connection: Connection, device_key: int, target_key: int) -> None:
    """Let the device measure for this target; saying it twice changes nothing."""
    insert_new(connection, DeviceTarget, device_key=device_key, target_key=target_key)


def get(connection: Connection, name_or_id: str) -> DeviceRow:
    """By public id or by name."""
    row = connection.execute(_rows().where(or_(Device.id == name_or_id, Device.name == name_or_id))).first()
    if row is None:
        raise NotFound("device", name_or_id)
    return _device(row)


def list_page(connection: Connection, limit: int, before: str | None = None) -> list[DeviceRow]:
    """Newest first; `before` is the id of the last device of the page before."""
    query = _rows().order_by(Device.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Device.id < before)
    return [_device(row) for row in connection.execute(query)]


def any_for(connection: Connection, target_key: int) -> bool:
    """Is there an active device that can stand for the target?"""
    return connection.execute(_ANY_FOR, {"target": target_key}).first() is not None


_ANY_FOR = (
    select(Device.key)
    .join(DeviceTarget, DeviceTarget.device_key == Device.key)
    .where(DeviceTarget.target_key == bindparam("target"), Device.state == DeviceState.ACTIVE)
    .limit(1)
)


def for_target(connection: Connection, target_key: int, host: str | None = None) -> list[DeviceRow]:
    """Active devices that can stand for the target, free ones first; with `host` only those that it reaches."""
    query = (
        _rows()
        .join(DeviceTarget, DeviceTarget.device_key == Device.key)
        .where(DeviceTarget.target_key == target_key, Device.state == DeviceState.ACTIVE)
        .order_by(Device.lease_until, Device.key)
    )
    if host is not None:
        query = query.where(Device.host == host)
    return [_device(row) for row in connection.execute(query)]


def serving(connection: Connection, target_key: int, seen_after: float) -> int:
    """How many active devices stand for the target of whose hosts a worker was seen after `seen_after`."""
    return int(connection.execute(_SERVING, {"target": target_key, "seen_after": seen_after}).scalar_one())


_SERVING = (
    select(func.count())
    .select_from(Device)
    .join(DeviceTarget, DeviceTarget.device_key == Device.key)
    .where(
        DeviceTarget.target_key == bindparam("target"),
        Device.state == DeviceState.ACTIVE,
        exists().where(
            Worker.host == Device.host,
            Worker.last_seen >= bindparam("seen_after"),
            Worker.stopped_at.is_(None),
            ~Worker.draining,
        ),
    )
)


def last_served(connection: Connection, target_key: int) -> float | None:
    """When a worker of a host of one of the target's devices was last heard of; None when there was none."""
    query = (
        select(func.max(Worker.last_seen))
        .join(Device, Device.host == Worker.host)
        .join(DeviceTarget, DeviceTarget.device_key == Device.key)
        .where(DeviceTarget.target_key == target_key)
    )
    return connection.execute(query).scalar_one()


def targets_of(connection: Connection, device_key: int) -> list[str]:
    """Ids of the targets that the device can stand for."""
    query = (
        select(Target.id)
        .join(DeviceTarget, DeviceTarget.target_key == Target.key)
        .where(DeviceTarget.device_key == device_key)
        .order_by(Target.id)
    )
    return list(connection.execute(query).scalars())


def set_state(connection: Connection, device_id: str, state: DeviceState) -> DeviceRow:
    """Pause, drain or make active again; whoever holds the lease may keep it to its end."""
    changed = connection.execute(update(Device).where(Device.id == device_id).values(state=state))
    if changed.rowcount != 1:
        raise NotFound("device", device_id)
    return get(connection, device_id)


def store_calibration(connection: Connection, device_key: int, calibration: dict[str, Any]) -> None:
    connection.execute(update(Device).where(Device.key == device_key).values(last_calibration=calibration))


def acquire(
    connection: Connection, device_id: str, owner: str, lease_s: float, now: float | None = None
) -> DeviceLease | None:
    """Take the device for measuring; None while somebody holds it (be it the same owner) or it is not active."""
    at = moment(connection, now)
    free = (
        select(Device.key)
        .where(
            Device.id == device_id,
            Device.state == DeviceState.ACTIVE,
            or_(Device.owner.is_(None), Device.lease_until < at),
        )
        .with_for_update(skip_locked=True)
    )
    row: Any = connection.execute(
        update(Device)
        .where(Device.key == free.scalar_subquery())
        .values(owner=owner, attempt=Device.attempt + 1, lease_until=at + lease_s)
        .returning(Device.id, Device.key, Device.owner, Device.attempt, Device.lease_until)
    ).one_or_none()
    return None if row is None else DeviceLease(*row)


def renew(
    connection: Connection, owner: str, lease_s: float, leases: Sequence[DeviceLease], now: float | None = None
) -> frozenset[str]:
    """Prolong this owner's leases in one statement; returns the ids of the devices that are still held."""
    if not leases:
        return frozenset()
    wanted = [(lease.device_key, lease.attempt) for lease in leases]
    rows = connection.execute(
        update(Device)
        .where(Device.owner == owner, tuple_(Device.key, Device.attempt).in_(wanted))
        .values(lease_until=moment(connection, now) + lease_s)
        .returning(Device.id)
    )
    return frozenset(rows.scalars())


def fence(lease: DeviceLease) -> tuple[ColumnElement[bool], ...]:
    """What must hold of the row for this lease to be in force: nobody took the device since."""
    return (Device.owner == lease.owner, Device.attempt == lease.attempt)


def check(connection: Connection, lease: DeviceLease) -> None:
    """Raise StaleClaim when somebody else took the device: what was timed meanwhile may have been disturbed."""
    query = select(Device.key).where(Device.key == lease.device_key, *fence(lease))
    if connection.execute(query).first() is None:
        raise StaleClaim(f"device {lease.device_id}", lease.owner, lease.attempt)


def release(connection: Connection, lease: DeviceLease) -> bool:
    """Free the device; False, and nothing changed, when somebody else holds it by now."""
    changed = connection.execute(
        update(Device).where(Device.key == lease.device_key, *fence(lease)).values(owner=None, lease_until=0.0)
    )
    return changed.rowcount == 1


def _device(row: Any) -> DeviceRow:
    values = dict(row._mapping)
    values["state"] = DeviceState(values["state"])
    return DeviceRow(**values)


def _rows() -> AnySelect:
    return select(
        Device.key,
        Device.id,
        Device.name,
        Device.kind,
        Device.tracker_key,
        Device.host,
        Device.state,
        Device.owner,
        Device.lease_until,
        Device.last_calibration,
        Device.created_at,
    )
