"""Round step: one round of one task of a job; a round without a task only plans the job's first one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection

from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import (
    events,
    jobs,
    projects,
    ranking_checks,
    records,
    schedules,
    steps,
    targets,
    tasks,
    workloads,
)
from crosstune.db.repositories.jobs import JobState
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.db.repositories.schedules import KnownRecord
from crosstune.db.repositories.steps import Claim
from crosstune.db.repositories.tasks import TaskRow
from crosstune.service import drift, model_files, planning
from crosstune.service.calibrated import known_attributes
from crosstune.service.heart import Held
from crosstune.service.measured_elsewhere import EVIDENCE_PER_TARGET, by_target
from crosstune.service.model_files import SHIPPED, Champion
from crosstune.service.steps.context import WorkerContext
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    Invalidity,
    KnownSchedule,
    Quality,
    RoundRequest,
    RoundResult,
    TargetSpec,
    TrainingExample,
    Workload,
)
from crosstune.tuner.manifest import ArtifactRefused

EXAMPLES = 1500
"""Newest measured programs of the target that the ranker learns from: trains in some tenths of a second."""
SEEDS_PER_TARGET, MOST_SEEDS = 8, 16
"""Schedules of the same workload on other targets that a first round starts from."""
NEAREST, PER_NEAREST = 8, 2
"""Workloads like the one of a round, and schedules of each, that its first round starts from."""


@dataclass(frozen=True, slots=True)
class RoundInput:
    task: TaskRow
    request: RoundRequest
    champion: Champion
    note: str
    """What is wrong with the version that should be in use; empty otherwise."""


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    if "task_key" not in claim.input:
        retrying(context.engine, lambda connection: _plan_first(context, connection, claim, held))
        return
    started_s = time.monotonic()
    with reading(context.engine) as connection:
        given = _gather(context, connection, claim)
    result = context.rounds.run(given.request, lambda: context.measuring(held, until_end=True), held.should_stop)
    # Waiting for the device is nobody's tuning time.
    gone_s = time.monotonic() - started_s - result.timings_s.get("wait_for_device", 0.0)
    retrying(context.engine, lambda connection: _end(context, connection, claim, held, given, result, gone_s))


def _end(
    context: WorkerContext,
    connection: Connection,
    claim: Claim,
    held: Held,
    given: RoundInput,
    result: RoundResult,
    gone_s: float,
) -> None:
    """One transaction: flip the step, store what was measured, count it, tell of it, plan and take what comes next."""
    _store(context, connection, claim, given, result, gone_s)
    assert claim.job_id is not None
    _plan_next(context, connection, claim.job_id)
    context.end(connection, held)


def _plan_first(context: WorkerContext, connection: Connection, claim: Claim, held: Held) -> None:
    assert claim.job_id is not None
    steps.finish(connection, claim)
    job = jobs.get(connection, claim.job_id)
    if job.ended or job.cancel_requested:
        jobs.settle_cancelled(connection, job.id)
        return
    jobs.transition(connection, job.id, JobState.RUNNING, message="")
    _remember(connection, job.id, job.target_key, projects.get(connection, job.project_id).key)
    _plan_next(context, connection, job.id)
    context.end(connection, held)


def _plan_next(context: WorkerContext, connection: Connection, job_id: str) -> None:
    settings = context.settings
    planning.plan_next(connection, job_id, settings.round_trials, time.time() - settings.worker_live_s)


def _remember(connection: Connection, job_id: str, target_key: int, project_key: int) -> None:
    """Tasks that were tuned on this target before start from what is known."""
    rows = tasks.of_job(connection, job_id)
    best = schedules.best(connection, target_key, [row.workload_key for row in rows], project_key)
    default_s = schedules.defaults(connection, target_key, [row.workload_key for row in rows])
    for row in rows:
        known = best.get(row.workload_key)
        tasks.know(
            connection,
            row.key,
            best_latency_s=known.latency_s if known else None,
            default_latency_s=default_s.get(row.workload_key),
        )


def _gather(context: WorkerContext, connection: Connection, claim: Claim) -> RoundInput:
    task = tasks.get(connection, claim.input["task_key"])
    assert claim.target_key is not None
    target = targets.get_by_key(connection, claim.target_key)
    champion, note = _champion(context, connection)
    request = round_request(
        connection,
        target=TargetSpec.from_json(target.spec),
        target_key=target.key,
        workload_key=task.workload_key,
        project_key=projects.get(connection, claim.project_id).key,
        trials=claim.input["trials"],
        # Every attempt draws anew, or a candidate that kills the search would be met again.
        seed=claim.input["seed"] + 1_000_003 * claim.attempt,
        build_timeout_s=context.settings.build_timeout_s,
        run_timeout_s=context.settings.run_timeout_s,
        ranker=context.settings.ranker,
        model_folder=champion.folder,
    )
    return RoundInput(task, request, champion, note)


def _champion(context: WorkerContext, connection: Connection) -> tuple[Champion, str]:
    """The version in use, or the shipped one with a word on why."""
    try:
        return model_files.champion(connection, context.store), ""
    except (ArtifactRefused, OSError) as error:
        return Champion(SHIPPED), f"the cost model in use cannot be read ({error}); the shipped one ranks instead"


def round_request(
    connection: Connection,
    *,
    target: TargetSpec,
    target_key: int,
    workload_key: int,
    project_key: int,
    trials: int,
    seed: int,
    build_timeout_s: float,
    run_timeout_s: float,
    ranker: str = "attention",
    model_folder: Path | None = None,
) -> RoundRequest:
    """A round with everything that the database knows of the workload and of programs on the target.

    The first round of a workload also starts from its best schedules on other targets, and from those of the workloads
    that are most like it.
    """
    known = schedules.known(connection, target_key, workload_key, FEATURE_LAYOUT)
    seeds = [] if known else _seeds(connection, target_key, workload_key, project_key)
    near = [] if known else schedules.near(connection, target_key, workload_key, project_key, NEAREST, PER_NEAREST)
    examples = schedules.examples(connection, target_key, FEATURE_LAYOUT, EXAMPLES)
    elsewhere = schedules.elsewhere(connection, target_key, workload_key, project_key, EVIDENCE_PER_TARGET)
    return RoundRequest(
        target=target,
        workload=load_workload(connection, workload_key),
        known=(*seeds, *map(_known, known)),
        examples=tuple(TrainingExample(one.group, one.features, one.latency_s) for one in examples),
        trials=trials,
        seed=seed,
        build_timeout_s=build_timeout_s,
        run_timeout_s=run_timeout_s,
        ranker=ranker,
        model_folder=None if model_folder is None else str(model_folder),
        attributes=known_attributes(connection, target_key),
        elsewhere=by_target(connection, elsewhere),
        near=tuple(one.trace for one in near),
    )


def load_workload(connection: Connection, workload_key: int) -> Workload:
    row = workloads.get_by_key(connection, workload_key)
    return Workload(
        sha256=row.sha256,
        version_free_key=row.version_free_key,
        name=row.name,
        module=workloads.module_of(connection, workload_key),
        flops=row.flops,
        args=tuple((dtype, tuple(shape)) for dtype, shape in row.args),
        output_count=row.output_count,
        tvm_version=row.tvm_version,
        pipeline_version=row.pipeline_version,
    )


def _seeds(connection: Connection, target_key: int, workload_key: int, project_key: int) -> list[KnownSchedule]:
    """Schedules without a verdict here, which the search takes as transfers to be tried."""
    found = schedules.seeds(connection, target_key, workload_key, project_key, SEEDS_PER_TARGET, MOST_SEEDS)
    return [KnownSchedule(one.trace, one.schedule_sha256, None, None, None) for one in found]


def _known(record: KnownRecord) -> KnownSchedule:
    return KnownSchedule(
        trace=record.trace,
        schedule_sha256=record.schedule_sha256,
        latency_s=record.latency_s,
        quality=Quality(record.quality) if record.quality else None,
        invalidity=Invalidity(record.invalidity) if record.invalidity else None,
        features=record.features,
        module_sha256=record.module_sha256,
        quick_s=record.quick_s,
    )


def _store(
    context: WorkerContext, connection: Connection, claim: Claim, given: RoundInput, result: RoundResult, gone_s: float
) -> None:
    assert claim.job_id is not None and claim.target_key is not None
    started_s = time.monotonic()
    steps.finish(connection, claim, lock_job=False)
    task = given.task
    project = projects.get(connection, claim.project_id)
    model_key = given.champion.key if context.settings.ranker == "attention" else None
    store_candidates(context, connection, claim, task.workload_key, project.key, result.candidates, model_key)
    ranked = drift.ranked(result.candidates) if context.settings.ranker == "attention" else None
    if ranked is not None:
        ranking_checks.add(
            connection,
            ranked,
            target_key=claim.target_key,
            workload_key=task.workload_key,
            model_key=model_key,
            step_key=claim.step_key,
        )
    best = schedules.best(connection, claim.target_key, [task.workload_key], project.key).get(task.workload_key)
    default_s = schedules.defaults(connection, claim.target_key, [task.workload_key]).get(task.workload_key)
    counted = tasks.count_round(
        connection,
        task.key,
        trials=len(result.candidates),
        searched_s=gone_s,
        best_latency_s=best.latency_s if best else None,
        default_latency_s=default_s,
        exhausted=result.exhausted,
    )
    # From here on the job's other rounds wait.
    used = given.champion.version if context.settings.ranker == "attention" else context.settings.ranker
    jobs.use_model(connection, claim.job_id, used)
    rows = tasks.of_job(connection, claim.job_id)
    untuned_s, best_s = planning.estimates_s(rows)
    job = jobs.count(
        connection,
        claim.job_id,
        trials=len(result.candidates),
        searched_s=gone_s,
        untuned_latency_s=untuned_s,
        best_latency_s=best_s,
    )
    expected = planning.job_outlook(connection, job, rows, context.settings.round_trials)
    events.append(
        connection,
        claim.job_id,
        "round",
        {
            "task": task.position,
            "name": task.name,
            "workload": task.workload_sha256,
            "trials": len(result.candidates),
            "valid": sum(_valid(candidate.attempts) for candidate in result.candidates),
            "task_trials": counted.trials,
            "job_trials": job.trials,
            "searched_s": job.searched_s,
            "best_latency_s": counted.best_latency_s,
            "default_latency_s": counted.default_latency_s,
            "network_best_s": job.best_latency_s,
            "network_untuned_s": job.untuned_latency_s,
            "exhausted": counted.exhausted,
            "outlook": None if expected is None else asdict(expected),
            "sources": _sources(result),
            "cost_model": used,
            "ranked": None if ranked is None else asdict(ranked),
            "note": "; ".join(one for one in (given.note, result.note) if one),
            "timings_s": {**result.timings_s, "store": time.monotonic() - started_s},
            "reference_s": result.reference_s,
        },
    )


def _sources(result: RoundResult) -> dict[str, dict[str, int]]:
    """What became of the candidates of each source; of those from elsewhere also how many were at hand and fitted."""
    found: dict[str, dict[str, int]] = {
        source: {**asdict(counts), "measured": 0, "failed": 0} for source, counts in result.offered.items()
    }
    for candidate in result.candidates:
        counts = found.setdefault(candidate.source, {"measured": 0, "failed": 0})
        counts["measured" if _valid(candidate.attempts) else "failed"] += 1
    return found


def _valid(attempts: Sequence[Attempt]) -> bool:
    return bool(attempts) and attempts[-1].invalidity is None


def store_candidates(
    context: WorkerContext,
    connection: Connection,
    claim: Claim,
    workload_key: int,
    project_key: int,
    candidates: Sequence[CandidateResult],
    model_key: int | None = None,
) -> None:
    """Every attempt as a measurement, and the records judged anew. `model_key`: the version that proposed them."""
    assert claim.target_key is not None
    identity = context.identity
    records.store(
        connection,
        target_key=claim.target_key,
        workload_key=workload_key,
        project_key=project_key,
        candidates=[new_candidate(one, identity.device_key, identity.worker_key, claim) for one in candidates],
        model_key=model_key,
    )


def new_candidate(
    candidate: CandidateResult, device_key: int | None, worker_key: int | None, claim: Claim | None
) -> NewCandidate:
    """A candidate as the database takes it."""
    return NewCandidate(
        schedule_sha256=candidate.schedule_sha256,
        trace=candidate.trace,
        module_sha256=candidate.module_sha256,
        features=candidate.features,
        feature_layout=FEATURE_LAYOUT if candidate.features is not None else None,
        predicted_score=candidate.predicted_score,
        source=candidate.source,
        measurements=tuple(new_measurement(one, device_key, worker_key, claim) for one in candidate.attempts),
    )


def new_measurement(
    attempt: Attempt, device_key: int | None, worker_key: int | None, claim: Claim | None
) -> NewMeasurement:
    return NewMeasurement(
        latencies_s=attempt.latencies_s,
        quality=attempt.quality,
        status="disturbed" if attempt.disturbed else "valid",
        invalidity=attempt.invalidity,
        detail=attempt.detail,
        conditions=attempt.conditions,
        device_key=device_key,
        worker_key=worker_key,
        step_key=claim.step_key if claim else None,
        attempt=claim.attempt if claim else 1,
    )
