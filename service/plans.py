"""What a job would do: `dry_run`."""

from __future__ import annotations

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.repositories import jobs, networks
from crosstune.db.repositories.networks import NetworkTaskRow
from crosstune.service import availability, lookups
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schedules import Known, expected_sum, known_schedules, seconds
from crosstune.service.schemas.jobs import Budget, JobBudget, JobIn, JobPlan, JobPlanTask
from crosstune.service.schemas.schedules import Label
from crosstune.service.services import Services


def plan(services: Services, caller: Principal, body: JobIn) -> Reply:
    """Tasks, what is known of them and the time that the job would take; nothing is created."""
    with reading(services.engine) as connection:
        network = lookups.ready_network(connection, caller, body.network)
        target = lookups.target(connection, body.target)
        found = networks.tasks_of(connection, network.id)
        known = known_schedules(connection, caller.project_key, target, [task.workload for task in found])
        estimated_s, basis = estimate(connection, target.key, body.budget)
        live = availability.is_live(services, connection, target.key)
    return reply(
        200,
        JobPlan(
            network=network.id,
            target=target.id,
            budget=JobBudget(trials=body.budget.trials, seconds=body.budget.seconds),
            tasks=[_task(task, known[task.workload.key]) for task in found],
            unsupported_operators=[],
            estimated_seconds=estimated_s,
            estimate_basis=basis,
            device_live=live,
            **seconds(expected_sum([(task.weight, known[task.workload.key]) for task in found])),
        ),
    )


def estimate(connection: Connection, target_key: int, budget: Budget) -> tuple[float | None, str]:
    """Seconds until the budget is used, and where that comes from."""
    rate = jobs.trials_per_s(connection, target_key) if budget.trials is not None else None
    if budget.trials is None or rate is None:
        basis = "the budget in seconds" if budget.seconds is not None else "nothing was measured on this target yet"
        return budget.seconds, basis
    by_trials_s = budget.trials / rate
    if budget.seconds is not None and budget.seconds < by_trials_s:
        return budget.seconds, "the budget in seconds"
    return by_trials_s, f"earlier jobs on this target measured {rate:.2f} trials per second"


def _task(task: NetworkTaskRow, known: Known) -> JobPlanTask:
    measured = known.row if known.label is Label.MEASURED else None
    return JobPlanTask(
        workload=task.workload.sha256,
        name=task.workload.name,
        weight=task.weight,
        flops=task.workload.flops,
        known=known.label,
        best_latency_s=measured.latency_s if measured else None,
        **seconds(known.expected),
    )
