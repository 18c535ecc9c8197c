"""Explore step: a few programs of the stored workload that would teach most about a target, and the next step.

What is expected of a workload on the target (`service.expecting`) is sure where something like it was measured on
hardware like this. That one is measured next which makes what is told of all others surest: uncertainty and diversity
are one here, since a workload that others are like tells of them, until it is known. Its programs are the best that
other targets know.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import projects, schedules, steps, targets, workloads
from crosstune.db.repositories.steps import Claim
from crosstune.db.repositories.targets import TargetRow
from crosstune.service import work
from crosstune.service.heart import Held
from crosstune.service.steps.context import WorkerContext
from crosstune.service.steps.tuning import round_request, store_candidates
from crosstune.tuner.contracts import CandidateResult, RoundRequest, TargetSpec

BATCH = 6
"""Programs of one workload: its default schedule and what a first round tries of other targets'."""
MOST_CANDIDATES = 500
INFORMATIVE, RANDOM = "informative", "random"


@dataclass(frozen=True, slots=True)
class Batch:
    workload_key: int
    project_key: int
    request: RoundRequest


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    with reading(context.engine) as connection:
        batch = _gather(context, connection, claim)
    if batch is None:
        retrying(context.engine, lambda connection: steps.finish(connection, claim))
        return
    result = context.rounds.run(batch.request, lambda: context.measuring(held), held.should_stop)
    retrying(context.engine, lambda connection: _store(context, connection, claim, batch, result.candidates))


def _gather(context: WorkerContext, connection: Connection, claim: Claim) -> Batch | None:
    """None when every stored workload was measured on the target."""
    target = targets.get(connection, claim.input["target_id"])
    project_key = projects.get(connection, claim.project_id).key
    random = Random(1_000_003 * claim.input["seed"] + claim.input["trials"])
    chosen = choose(connection, target, project_key, claim.input["method"], random)
    if chosen is None:
        return None
    request = round_request(
        connection,
        target=TargetSpec.from_json(target.spec),
        target_key=target.key,
        workload_key=chosen,
        project_key=project_key,
        trials=min(BATCH, claim.input["trials"]),
        seed=claim.input["seed"] + 1_000_003 * claim.attempt,
        build_timeout_s=context.settings.build_timeout_s,
        run_timeout_s=context.settings.run_timeout_s,
        ranker=context.settings.ranker,
    )
    return Batch(chosen, project_key, request)


def choose(connection: Connection, target: TargetRow, project_key: int, method: str, random: Random) -> int | None:
    """Key of the workload to measure next; None when none is left. Drawn blindly by `random`, and where nothing can be
    said of any."""
    from crosstune.service import expecting

    keys = schedules.unmeasured(connection, target.key, project_key, MOST_CANDIDATES)
    if not keys:
        return None
    chosen = None
    if method == INFORMATIVE:
        chosen = expecting.most_telling(connection, project_key, target, workloads.get_by_keys(connection, keys))
    return random.choice(keys) if chosen is None else chosen


def _store(
    context: WorkerContext, connection: Connection, claim: Claim, batch: Batch, found: tuple[CandidateResult, ...]
) -> None:
    """One transaction: flip the step, store what was measured, go on with what is left of the budget."""
    assert claim.target_key is not None
    steps.finish(connection, claim)
    store_candidates(context, connection, claim, batch.workload_key, batch.project_key, found)
    left = claim.input["trials"] - max(1, len(found))
    if left > 0:
        more = {**claim.input, "trials": left}
        work.enqueue_explore(connection, claim.project_id, claim.target_key, more)
