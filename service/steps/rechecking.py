"""Recheck step: measure bests of a target again that were last measured long ago, a few at a time, while no job waits.

The new measurement counts as any other, so a record that does not hold loses its place by itself.
"""

from __future__ import annotations

import logging
import time
from statistics import median

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import devices, listing, projects, records, steps, targets
from crosstune.db.repositories.listing import AuditCandidate
from crosstune.db.repositories.records import NewCandidate
from crosstune.db.repositories.steps import Claim
from crosstune.service import work
from crosstune.service.heart import Held
from crosstune.service.retention import DAY_S
from crosstune.service.settings import Settings
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.service.steps.tuning import new_measurement, round_request
from crosstune.tuner.builder import Builder
from crosstune.tuner.contracts import Attempt, RoundRequest, TargetSpec
from crosstune.tuner.remeasuring import measure_again

logger = logging.getLogger(__name__)

BATCH = 4
"""Bests of one step: some seconds each."""


def schedule(connection: Connection, settings: Settings, device_key: int) -> None:
    """Add a step for each target of the device that has bests to look at, unless one waits already."""
    if settings.recheck_days is None:
        return
    before = time.time() - DAY_S * settings.recheck_days
    for target_id in devices.targets_of(connection, device_key):
        target = targets.get(connection, target_id)
        waiting = steps.count_live(connection, work.target_queue(target_id), steps.StepKind.RECHECK)
        if not waiting and listing.stale_bests(connection, target.key, before, 1):
            work.enqueue_recheck(connection, projects.get(connection).id, target.key, target_id, before)


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    assert claim.target_key is not None
    with reading(context.engine) as connection:
        found = listing.stale_bests(connection, claim.target_key, claim.input["before"], BATCH)
        requests = [_request(context, connection, claim, one) for one in found]
    builder = Builder(context.template, 1, context.settings.build_timeout_s)
    attempts = []
    for candidate, request in zip(found, requests, strict=True):
        if held.should_stop():
            raise Stopped
        attempt = measure_again(builder, context.runner, request, candidate.trace, lambda: context.measuring(held))
        logger.info("record %s: %.6g s, now %s", candidate.record_id, candidate.latency_s, _told(attempt))
        attempts.append(attempt)
    retrying(context.engine, lambda connection: _store(context, connection, claim, found, attempts))


def _request(context: WorkerContext, connection: Connection, claim: Claim, candidate: AuditCandidate) -> RoundRequest:
    assert claim.target_key is not None
    target = targets.get_by_key(connection, claim.target_key)
    return round_request(
        connection,
        target=TargetSpec.from_json(target.spec),
        target_key=target.key,
        workload_key=candidate.workload_key,
        project_key=projects.get(connection, claim.project_id).key,
        trials=1,
        seed=0,
        build_timeout_s=context.settings.build_timeout_s,
        run_timeout_s=context.settings.run_timeout_s,
    )


def _told(attempt: Attempt) -> str:
    return f"{median(attempt.latencies_s):.6g} s" if attempt.latencies_s else attempt.detail


def _store(
    context: WorkerContext,
    connection: Connection,
    claim: Claim,
    found: list[AuditCandidate],
    attempts: list[Attempt],
) -> None:
    """One transaction: flip the step, store what was measured, go on while there are more."""
    assert claim.target_key is not None
    steps.finish(connection, claim)
    identity = context.identity
    for candidate, attempt in zip(found, attempts, strict=True):
        measured = new_measurement(attempt, identity.device_key, identity.worker_key, claim)
        records.store(
            connection,
            target_key=claim.target_key,
            workload_key=candidate.workload_key,
            candidates=[NewCandidate(candidate.schedule_sha256, candidate.trace, (measured,))],
            project_key=projects.get(connection, claim.project_id).key,
        )
    if len(found) == BATCH:
        target_id = targets.get_by_key(connection, claim.target_key).id
        work.enqueue_recheck(connection, claim.project_id, claim.target_key, target_id, claim.input["before"])
