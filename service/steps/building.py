"""Build step: a network and its pinned schedules become a verified artifact, or a refusal."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import (
    artifacts,
    builds,
    events,
    jobs,
    listing,
    networks,
    projects,
    steps,
    targets,
)
from crosstune.db.repositories.builds import BuildRow
from crosstune.db.repositories.jobs import JobState
from crosstune.db.repositories.steps import Claim
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.heart import Held
from crosstune.service.pins import Pin, default_pin, label_of, stored
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.service.steps.untried import UNTRIED, Candidate, gather, resolve, schedules_of
from crosstune.service.store import Stored
from crosstune.tuner import archive, deploy
from crosstune.tuner.contracts import BuildOutcome, BuildRequest, PinnedSchedule, TargetSpec
from crosstune.tuner.deploy import Compiled, Verification
from crosstune.tuner.tvm_adapter.preload import TVM_VERSION

ARTIFACT_KIND = "build"


@dataclass(frozen=True, slots=True)
class BuildInput:
    build: BuildRow
    request: BuildRequest
    """With the schedules that were measured on its target."""
    pins: list[Pin]
    """Of these, and defaults that are no choice of this step."""
    untried: list[Candidate]
    project: str


@dataclass(frozen=True, slots=True)
class Made:
    outcome: BuildOutcome
    pins: list[Pin]
    """What was used in the end."""


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    with reading(context.engine) as connection:
        given = _gather(context, connection, claim)
    folder = Path(given.request.output_folder)
    try:
        with held.on_stop(context.template.kill_children):
            made = _make(context, held, given)
        if held.should_stop():  # its children were killed, so what they left says nothing about the network
            raise Stopped
        artifact = None
        if made.outcome.refused is None:
            packed = archive.pack(folder, folder.with_suffix(".tar"))
            artifact = context.store.put_file(given.project, ARTIFACT_KIND, packed)
        retrying(context.engine, lambda connection: _store(connection, claim, given.build, made, artifact))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".tar").unlink(missing_ok=True)


def _make(context: WorkerContext, held: Held, given: BuildInput) -> Made:
    pins = resolve(context, held, given.untried)
    reasons = {pin["workload"]: pin["reason"] for pin in pins if "reason" in pin}
    schedules = (*given.request.schedules, *schedules_of(pins))
    request = replace(given.request, schedules=schedules, defaults=reasons)
    compiled, verification = deploy.compile_verified(context.template, request, held.should_stop)
    outcome = _timed(context, held, compiled, verification)
    used = {schedule.workload_sha256 for schedule in compiled.request.schedules}
    defaults = compiled.request.defaults
    kept = [stored(pin) for pin in (*given.pins, *pins) if pin["workload"] in used]
    return Made(outcome, [*kept, *(default_pin(workload, reason) for workload, reason in defaults.items())])


def _timed(context: WorkerContext, held: Held, compiled: Compiled, verification: Verification) -> BuildOutcome:
    timings = None
    if verification.refused is None:
        with context.measuring(held):
            timings = deploy.time_network(context.template, compiled, context.runner)
    return deploy.finish(compiled, verification, timings)


def _gather(context: WorkerContext, connection: Connection, claim: Claim) -> BuildInput:
    build = builds.get(connection, claim.input["build_id"])
    network = networks.get(connection, build.network_id)
    project = projects.get(connection, build.project_id)
    assert network.artifact_id is not None, "a network in use keeps its bytes"
    path = context.store.path(artifacts.get(connection, network.artifact_id).uri)
    pins = [pin for pin in build.schedules if label_of(pin) not in UNTRIED]
    measured = []
    for pin in pins:
        record = listing.get(connection, pin["record"], project.key)
        measured.append(PinnedSchedule(record.workload_sha256, record.trace, record.schedule_sha256, record.latency_s))
    folder = context.settings.data_dir / "building" / f"{build.id}-{claim.attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    request = BuildRequest(
        target=TargetSpec.from_json(targets.get_by_key(connection, build.target_key).spec),
        network_path=str(path),
        shapes={name: tuple(shape) for name, shape in network.shapes.items()},
        schedules=tuple(measured),
        output_folder=str(folder),
        seed=0,
        timeout_s=context.settings.deploy_timeout_s,
    )
    return BuildInput(build, request, pins, gather(connection, build), project.name)


def _store(connection: Connection, claim: Claim, build: BuildRow, made: Made, artifact: Stored | None) -> None:
    steps.finish(connection, claim)
    outcome = made.outcome
    builds.pin(connection, build.id, made.pins)
    artifact_id = None
    if artifact is not None:
        artifact_id = add_artifact(connection, build.project_id, ARTIFACT_KIND, artifact, build.id)
    builds.finish(
        connection,
        build.id,
        manifest=outcome.manifest,
        tvm_version=TVM_VERSION,
        artifact_id=artifact_id,
        tuned_latency_s=outcome.tuned_latency_s,
        untuned_latency_s=outcome.untuned_latency_s,
        reference_latency_s=outcome.reference_latency_s,
        largest_error=outcome.largest_error,
        refused=outcome.refused,
    )
    if build.job_id is not None:
        _end_job(connection, build.job_id, build.id, outcome)


def _end_job(connection: Connection, job_id: str, build_id: str, outcome: BuildOutcome) -> None:
    if jobs.settle_cancelled(connection, job_id):
        return
    events.append(
        connection,
        job_id,
        "build",
        {
            "build": build_id,
            "tuned_latency_s": outcome.tuned_latency_s,
            "untuned_latency_s": outcome.untuned_latency_s,
            "reference_latency_s": outcome.reference_latency_s,
            "largest_error": outcome.largest_error,
            "refused": outcome.refused,
        },
    )
    if outcome.refused is None:
        jobs.transition(connection, job_id, JobState.SUCCEEDED, message="")
    else:
        jobs.end_failed(connection, job_id, "build-refused", outcome.refused)
