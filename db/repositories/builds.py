"""Builds: a network compiled for a target with pinned schedules; a finished one never changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, exists, insert, select, update
from sqlalchemy.orm import aliased

from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import Build, Target


class BuildState(StrEnum):
    BUILDING = "building"
    READY = "ready"
    REFUSED = "refused"
    """It was compiled, but its verification failed: nothing of it may be used."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BuildRow:
    """Latencies are seconds of one inference; `refused` says why there is nothing to use."""

    id: str
    project_id: str
    network_id: str
    target_id: str
    target_key: int
    job_id: str | None
    state: BuildState
    tvm_version: str | None
    schedules: Any
    manifest: Any
    artifact_id: str | None
    tuned_latency_s: float | None
    untuned_latency_s: float | None
    reference_latency_s: float | None
    largest_error: float | None
    refused: str | None
    created_at: float
    finished_at: float | None


def create(
    connection: Connection,
    *,
    project_id: str,
    network_id: str,
    target_key: int,
    schedules: list[dict[str, Any]],
    job_id: str | None = None,
    now: float | None = None,
) -> BuildRow:
    """A build that a step is to make. `schedules` pins what it uses; a step may pin them later with `pin`."""
    build_id = new_id(Prefix.BUILD)
    connection.execute(
        insert(Build).values(
            id=build_id,
            project_id=project_id,
            network_id=network_id,
            target_key=target_key,
            job_id=job_id,
            state=BuildState.BUILDING,
            schedules=schedules,
            created_at=stamp(now),
        )
    )
    return get(connection, build_id)


def pin(connection: Connection, build_id: str, schedules: list[dict[str, Any]]) -> None:
    """Say what an unfinished build uses."""
    _set_unfinished(connection, build_id, schedules=schedules)


def finish(
    connection: Connection,
    build_id: str,
    *,
    manifest: dict[str, Any],
    tvm_version: str,
    artifact_id: str | None,
    tuned_latency_s: float | None,
    untuned_latency_s: float | None,
    reference_latency_s: float | None,
    largest_error: float | None,
    refused: str | None = None,
    now: float | None = None,
) -> BuildRow:
    """Store the outcome: ready, or refused with the reason."""
    _set_unfinished(
        connection,
        build_id,
        state=BuildState.READY if refused is None else BuildState.REFUSED,
        manifest=manifest,
        tvm_version=tvm_version,
        artifact_id=artifact_id,
        tuned_latency_s=tuned_latency_s,
        untuned_latency_s=untuned_latency_s,
        reference_latency_s=reference_latency_s,
        largest_error=largest_error,
        refused=refused,
        finished_at=stamp(now),
    )
    return get(connection, build_id)


def fail(connection: Connection, build_id: str, reason: str, now: float | None = None) -> None:
    """The build could not be made at all."""
    _set_unfinished(connection, build_id, state=BuildState.FAILED, refused=reason, finished_at=stamp(now))


def get(connection: Connection, build_id: str, project_id: str | None = None) -> BuildRow:
    query = _rows().where(Build.id == build_id)
    if project_id is not None:
        query = query.where(Build.project_id == project_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("build", build_id)
    return _build(row)


def list_page(
    connection: Connection,
    project_id: str,
    limit: int,
    before: str | None = None,
    network_id: str | None = None,
    target_key: int | None = None,
) -> list[BuildRow]:
    """Newest first; `before` is the id of the last build of the page before."""
    query = _rows().where(Build.project_id == project_id).order_by(Build.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Build.id < before)
    if network_id is not None:
        query = query.where(Build.network_id == network_id)
    if target_key is not None:
        query = query.where(Build.target_key == target_key)
    return [_build(row) for row in connection.execute(query)]


def _set_unfinished(connection: Connection, build_id: str, **values: Any) -> None:
    changed = connection.execute(
        update(Build).where(Build.id == build_id, Build.state == BuildState.BUILDING).values(**values)
    )
    if changed.rowcount != 1:
        raise NotFound("unfinished build", build_id)


def _build(row: Any) -> BuildRow:
    values = dict(row._mapping)
    values["state"] = BuildState(values["state"])
    return BuildRow(**values)


def outlived(connection: Connection, before: float, limit: int) -> list[BuildRow]:
    """Builds with artifacts that were finished before, oldest first, but for the newest of each network and target."""
    later = aliased(Build)
    newer = exists().where(
        later.network_id == Build.network_id,
        later.target_key == Build.target_key,
        later.artifact_id.is_not(None),
        later.id > Build.id,
    )
    old = (Build.artifact_id.is_not(None), Build.finished_at < before, newer)
    return [_build(row) for row in connection.execute(_rows().where(*old).order_by(Build.id).limit(limit))]


def forget_artifact(connection: Connection, build_id: str) -> None:
    """The build stays, without bytes."""
    connection.execute(update(Build).where(Build.id == build_id).values(artifact_id=None))


def _rows() -> AnySelect:
    return select(
        Build.id,
        Build.project_id,
        Build.network_id,
        Target.id.label("target_id"),
        Build.target_key,
        Build.job_id,
        Build.state,
        Build.tvm_version,
        Build.schedules,
        Build.manifest,
        Build.artifact_id,
        Build.tuned_latency_s,
        Build.untuned_latency_s,
        Build.reference_latency_s,
        Build.largest_error,
        Build.refused,
        Build.created_at,
        Build.finished_at,
    ).join(Target, Target.key == Build.target_key)
