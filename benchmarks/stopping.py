"""Does a job stop when it should, and is its forecast right? `python -m benchmarks.stopping`

SqueezeNet is submitted to a real service with far more budget than it needs. When the job has converged, what ten more
minutes are expected to take off the latency is written down; then a second job tunes the same network for ten minutes,
and the sum of the tasks' best latencies says what they brought. Both artifacts are timed in alternation at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import report
from benchmarks.networks import seeded_light
from benchmarks.report import Claim
from benchmarks.timing_networks import alternately
from crosstune import Client
from crosstune.db.engine import create_engine, reading
from crosstune.db.repositories import jobs, tasks
from crosstune.service import planning
from crosstune.service.embedded import embedded_service
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn
from crosstune.service.settings import Settings
from crosstune.tuner.allocation import network_estimate_s, saving_s

BUDGET_S, MORE_S = 3600.0, 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 s each, converged or not; not written as a result")
    options = parser.parse_args()
    budget_s, more_s = (20.0, 20.0) if options.quick else (BUDGET_S, MORE_S)
    folder = report.kept_folder("stopping", options.quick, fresh=True)
    with embedded_service(folder) as url, Client(url) as client:
        target = client.detect_target()
        network = client.wait_network(client.upload_network(seeded_light("squeezenet")).id)
        body = JobIn(network=network.id, target=target.id, budget=Budget(seconds=budget_s))
        stopped = client.wait(client.create_job(body).id)
        expected = expected_gain(folder, stopped.id, more_s)
        more = {"budget": Budget(seconds=more_s), "whole_budget": True, "seed": 1}
        longer = client.wait(client.create_job(body.model_copy(update=more)).id)
        artifacts = {job.id: client.download_artifact(build_of(job), folder / job.id) for job in (stopped, longer)}
    latencies_s = list(alternately(artifacts).values())
    path = report.write(
        "stopping",
        "python -m benchmarks.stopping",
        claims(expected, brought(stopped, longer)),
        {
            "stop_reason": stopped.stop_reason,
            "stopped_after_s": stopped.seconds,
            "trials": stopped.trials,
            "more_s": longer.seconds,
            "more_trials": longer.trials,
            "expected_gain": expected,
            "gain": brought(stopped, longer),
            "sum_of_tasks_s": [stopped.best_latency_s, longer.best_latency_s],
            "network_s": latencies_s,
        },
        target.cores,
        options.quick,
    )
    print(path)


def expected_gain(folder: Path, job_id: str, seconds: float) -> float:
    """Share of the network's latency, as the service itself reckons."""
    engine = create_engine(f"sqlite:///{folder / 'crosstune.db'}")
    with reading(engine) as connection:
        job = jobs.get(connection, job_id)
        states = planning.task_states(connection, job, tasks.of_job(connection, job_id))
        plan = planning.forecast_plan(connection, job, Settings().round_trials)
    engine.dispose()
    return saving_s(states, plan, seconds) / (network_estimate_s(states) or float("nan"))


def build_of(job: JobDetail) -> str:
    if job.build is None or job.failure is not None:
        raise SystemExit(f"the job {job.state}: {job.failure.detail if job.failure else job.stop_reason}")
    return job.build


def brought(stopped: JobDetail, longer: JobDetail) -> float:
    """Share that the second job took off the sum of the tasks' best latencies."""
    assert stopped.best_latency_s and longer.best_latency_s
    return 1.0 - longer.best_latency_s / stopped.best_latency_s


def claims(expected: float, gain: float) -> list[Claim]:
    """How far off the forecast was, whichever way; unmeasured where ten more minutes brought nothing."""
    off = max(expected / gain, gain / expected) if gain > 0 and expected > 0 else None
    return [Claim("gain_estimate_ratio", off, "", 2.0, "lower")]


if __name__ == "__main__":
    main()
