"""Builds: pin schedules, have a step compile and verify them, hand out the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.ids import Prefix
from crosstune.db.repositories import artifacts, builds, labels, listing, networks
from crosstune.db.repositories.builds import BuildRow
from crosstune.service import idempotency, journal, lookups, work
from crosstune.service.errors import ArtifactGone, BuildFailed, BuildNotReady, PinsRefused
from crosstune.service.pins import Pin, best_pins, label_of, measured_pin
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.builds import (
    ArtifactOut,
    BuildIn,
    BuildOut,
    BuildState,
    DefaultScheduleOut,
    PinnedScheduleOut,
    RecordChoice,
)
from crosstune.service.schemas.common import Failure, Page
from crosstune.service.schemas.schedules import Expectation, Label
from crosstune.service.services import Services

LIST = "builds"
ARTIFACT_KIND = "build"
SHOWN_STATES = {
    builds.BuildState.BUILDING: BuildState.BUILDING,
    builds.BuildState.READY: BuildState.SUCCEEDED,
    builds.BuildState.REFUSED: BuildState.FAILED,
    builds.BuildState.FAILED: BuildState.FAILED,
}


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    path: Path
    sha256: str


def create(services: Services, caller: Principal, key: str | None, body: BuildIn) -> Reply:
    """Build, pinned schedules, step and remembered answer in one transaction."""

    def submit(connection: Connection) -> Reply:
        network = lookups.ready_network(connection, caller, body.network)
        target = lookups.target(connection, body.target)
        keys = {task.workload.sha256: task.workload.key for task in networks.tasks_of(connection, network.id)}
        if body.records is RecordChoice.BEST:
            pins = best_pins(connection, target.key, keys, caller.project_key)
        else:
            pins = _named_pins(connection, target.key, keys, body.schedules, caller.project_key)
        row = builds.create(
            connection,
            project_id=caller.project_id,
            network_id=network.id,
            target_key=target.key,
            schedules=pins,
        )
        labels.replace(connection, caller.project_id, row.id, body.labels)
        work.enqueue_build(connection, row)
        journal.note(connection, caller, "create", row.id)
        return reply(202, _shown(connection, [row])[0])

    request = ["create_build", body.model_dump(mode="json")]
    return idempotency.once(services, caller, key, request, submit)


def _named_pins(
    connection: Connection, target_key: int, workload_keys: dict[str, int], wanted: dict[str, str], project_key: int
) -> list[Pin]:
    foreign = [sha256 for sha256 in wanted if sha256 not in workload_keys]
    if foreign:
        raise PinsRefused(
            f"the network has no workload {foreign[0]}; GET /v1/networks/{{network}}/tasks lists those it has",
            workloads=foreign[:10],
        )
    pins = []
    for workload, schedule in wanted.items():
        found = listing.find(connection, project_key, target_key, workload_keys[workload], schedule)
        if found is None or found.latency_s is None:
            reason = "is not known" if found is None else f"failed there ({found.invalidity})"
            raise PinsRefused(
                f"schedule {schedule} of workload {workload} {reason} on this target; "
                "GET /v1/records lists those that can be used",
                workload=workload,
                schedule=schedule,
            )
        pins.append(measured_pin(workload, schedule, found.latency_s, found.id))
    return pins


def page(
    services: Services, caller: Principal, network: str | None, target: str | None, limit: int, cursor: str | None
) -> Page[BuildOut]:
    before = lookups.page_start(LIST, cursor, Prefix.BUILD)
    with reading(services.engine) as connection:
        rows = builds.list_page(
            connection,
            caller.project_id,
            limit + 1,
            before,
            network_id=lookups.network(connection, caller, network).id if network else None,
            target_key=lookups.target(connection, target).key if target else None,
        )
        return lookups.page_of(LIST, rows, limit, lambda shown: _shown(connection, shown), lambda row: row.id)


def show(services: Services, caller: Principal, build_id: str) -> BuildOut:
    with reading(services.engine) as connection:
        return _shown(connection, [lookups.build(connection, caller, build_id)])[0]


def artifact(services: Services, caller: Principal, build_id: str) -> ArtifactFile:
    """Where the build's bytes lie; raises an error that says why there are none."""
    with reading(services.engine) as connection:
        row = lookups.build(connection, caller, build_id)
        if row.state == builds.BuildState.BUILDING:
            raise BuildNotReady(row.id, row.state)
        if row.state != builds.BuildState.READY:
            raise BuildFailed(row.id, row.refused or "no reason was kept")
        if row.artifact_id is None:
            raise ArtifactGone(row.id)
        stored = artifacts.get(connection, row.artifact_id, caller.project_id)
    path = services.store.path(stored.uri)
    if not path.is_file():
        raise ArtifactGone(row.id)
    return ArtifactFile(path, stored.sha256)


def _shown(connection: Connection, rows: Sequence[BuildRow]) -> list[BuildOut]:
    marks = labels.of_many(connection, rows[0].project_id, [row.id for row in rows]) if rows else {}
    return [_out(connection, row, marks.get(row.id, {})) for row in rows]


def _out(connection: Connection, row: BuildRow, marks: dict[str, str]) -> BuildOut:
    stored = artifacts.get(connection, row.artifact_id) if row.artifact_id else None
    state = SHOWN_STATES[row.state]
    code = "verification" if row.state == builds.BuildState.REFUSED else "build-failed"
    manifest = row.manifest or {}
    return BuildOut(
        id=row.id,
        state=state,
        network=row.network_id,
        target=row.target_id,
        job=row.job_id,
        schedules=[_pinned(pin) for pin in row.schedules if pin["schedule_sha256"] is not None],
        defaults=[
            DefaultScheduleOut(workload=pin["workload"], reason=pin["reason"])
            for pin in row.schedules
            if label_of(pin) is Label.DEFAULT
        ],
        tvm_version=row.tvm_version,
        artifact=ArtifactOut(sha256=stored.sha256, size_bytes=stored.size_bytes, kind=stored.kind) if stored else None,
        tuned_latency_s=row.tuned_latency_s,
        untuned_latency_s=row.untuned_latency_s,
        reference_latency_s=row.reference_latency_s,
        largest_error=row.largest_error,
        workloads_applied=manifest.get("workloads_applied"),
        workloads_total=manifest.get("workloads_total"),
        manifest=row.manifest,
        failure=Failure(code=code, detail=row.refused or "") if state is BuildState.FAILED else None,
        labels=marks,
        created_at=lookups.utc(row.created_at),
        finished_at=lookups.utc_or_none(row.finished_at),
    )


def _pinned(pin: Pin) -> PinnedScheduleOut:
    expected = {name: pin.get(name) for name in Expectation.model_fields}
    return PinnedScheduleOut(
        workload=pin["workload"],
        schedule=pin["schedule_sha256"],
        label=label_of(pin),
        latency_s=pin.get("latency_s"),
        **expected,
    )
