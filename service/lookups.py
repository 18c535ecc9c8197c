"""From what a request names (an id or a name) to the row, or an error that says what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection

from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, has_prefix
from crosstune.db.repositories import builds, devices, jobs, networks, targets, workers, workloads
from crosstune.db.repositories.builds import BuildRow
from crosstune.db.repositories.devices import DeviceRow
from crosstune.db.repositories.jobs import JobRow
from crosstune.db.repositories.networks import NetworkRow, NetworkState
from crosstune.db.repositories.targets import TargetRow
from crosstune.db.repositories.workers import WorkerRow
from crosstune.db.repositories.workloads import WorkloadRow
from crosstune.service import cursors
from crosstune.service.errors import (
    BuildUnknown,
    CursorRefused,
    DeviceUnknown,
    JobUnknown,
    NetworkBytesDeleted,
    NetworkNotReady,
    NetworkUnknown,
    NetworkUnusable,
    TargetUnknown,
    WorkerUnknown,
    WorkloadUnknown,
)
from crosstune.service.principal import Principal
from crosstune.service.schemas.common import Page

RowT = TypeVar("RowT")
ItemT = TypeVar("ItemT", bound=BaseModel)
NAMED = 10
"""How many of the known names an error lists."""


def network(connection: Connection, caller: Principal, reference: str) -> NetworkRow:
    try:
        if has_prefix(reference, Prefix.NETWORK):
            return networks.get(connection, reference, caller.project_id)
        return networks.get_by_name(connection, caller.project_id, reference)
    except NotFound as error:
        known = networks.list_page(connection, caller.project_id, NAMED)
        raise NetworkUnknown(reference, [row.name for row in known]) from error


def ready_network(connection: Connection, caller: Principal, reference: str) -> NetworkRow:
    """A network whose tasks are known."""
    found = usable_network(connection, caller, reference)
    if found.state != NetworkState.READY:
        raise NetworkNotReady(found.id, found.state)
    return found


def usable_network(connection: Connection, caller: Principal, reference: str) -> NetworkRow:
    """A network that is ready or may become so."""
    found = network(connection, caller, reference)
    refuse_unusable(found)
    return found


def refuse_unusable(found: NetworkRow) -> None:
    if found.deleted_at is not None:
        raise NetworkBytesDeleted(found.id)
    if found.state == NetworkState.REFUSED:
        refusal = found.refusal or {}
        raise NetworkUnusable(found.id, refusal.get("code", "refused"), refusal.get("detail", "no reason was kept"))


def target(connection: Connection, reference: str) -> TargetRow:
    try:
        return targets.get(connection, reference)
    except NotFound as error:
        raise TargetUnknown(reference, [row.name for row in targets.list_page(connection, NAMED)]) from error


def device(connection: Connection, reference: str) -> DeviceRow:
    try:
        return devices.get(connection, reference)
    except NotFound as error:
        raise DeviceUnknown(reference, [row.name for row in devices.list_page(connection, NAMED)]) from error


def worker(connection: Connection, worker_id: str) -> WorkerRow:
    try:
        return workers.get(connection, worker_id)
    except NotFound as error:
        raise WorkerUnknown(worker_id) from error


def job(connection: Connection, caller: Principal, job_id: str) -> JobRow:
    try:
        return jobs.get(connection, job_id, caller.project_id)
    except NotFound as error:
        raise JobUnknown(job_id) from error


def build(connection: Connection, caller: Principal, build_id: str) -> BuildRow:
    try:
        return builds.get(connection, build_id, caller.project_id)
    except NotFound as error:
        raise BuildUnknown(build_id) from error


def workload(connection: Connection, sha256: str) -> WorkloadRow:
    try:
        return workloads.get(connection, sha256)
    except NotFound as error:
        raise WorkloadUnknown(sha256) from error


def page_start(list_name: str, cursor: str | None, prefix: Prefix) -> str | None:
    """The id that the page begins after."""
    last = cursors.decode(list_name, cursor)
    if last is not None and not has_prefix(last, prefix):
        raise CursorRefused
    return last


def page_of(
    list_name: str,
    rows: list[RowT],
    limit: int,
    show: Callable[[list[RowT]], Iterable[ItemT]],
    last_id: Callable[[RowT], str],
) -> Page[ItemT]:
    """A page out of up to `limit` + 1 rows: the one too many says that there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=list(show(shown)), next=cursors.encode(list_name, last_id(shown[-1])) if more else None)


def utc(moment: float) -> datetime:
    """Seconds since the epoch as a time with its zone."""
    return datetime.fromtimestamp(moment, UTC)


def utc_or_none(moment: float | None) -> datetime | None:
    return None if moment is None else utc(moment)
