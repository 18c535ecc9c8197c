"""What a build is told of workloads that were never tuned on its target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import builds, jobs, projects, records, targets
from crosstune.db.repositories.builds import BuildRow
from crosstune.db.repositories.jobs import JobState
from crosstune.service import expecting
from crosstune.service.pins import default_pin, label_of, stored
from crosstune.service.planning import plan_next
from crosstune.service.settings import Settings
from crosstune.service.steps.context import WorkerContext
from crosstune.service.steps.untried import gather, request_of, schedules_of
from crosstune.tuner.contracts import TargetSpec

ME = 1
HERE = TargetSpec("llvm", "znver4", 2, "Silicon A", triple="x86_64-linux-gnu")
THERE = TargetSpec("llvm", "znver3", 2, "Silicon B", triple="x86_64-linux-gnu")
RATES = {"peak_flops_per_s": 2e11, "memory_bytes_per_s": 2e10}


def register(connection: Connection, spec: TargetSpec, **facts: float) -> int:
    row, _ = targets.register(connection, identity=spec.identity, name=spec.mcpu, spec=spec.to_json())
    targets.add_facts(connection, row.key, facts, "calibrated")
    return row.key


def store(connection: Connection, make: Any, target_key: int, graph: str, latency_s: float) -> None:
    records.store(
        connection,
        target_key=target_key,
        workload_key=make.workload(connection, graph).key,
        project_key=ME,
        candidates=[make.candidate(f"of {graph}", make.full(latency_s))],
    )


def build_of_a_job(connection: Connection, make: Any, target_key: int) -> BuildRow:
    """A job for three workloads whose budget was used up at once; one was measured here, one elsewhere."""
    network = make.network(connection, "net", ("conv", "pool", "dense"))
    job = jobs.create(
        connection, project_id="default", network_id=network.id, target_key=target_key, budget_trials=10, budget_s=None
    )
    jobs.transition(connection, job.id, JobState.RUNNING)
    jobs.count(connection, job.id, trials=10, searched_s=1.0, untuned_latency_s=None, best_latency_s=None)
    plan_next(connection, job.id, 32)
    ended = jobs.get(connection, job.id)
    assert ended.state is JobState.BUILDING and ended.build_id is not None
    return builds.get(connection, ended.build_id)


def context() -> WorkerContext:
    return cast(WorkerContext, SimpleNamespace(settings=Settings()))


def test_a_job_builds_with_what_is_known_elsewhere_or_predicted_for_tasks_that_it_did_not_reach(
    engine: Engine, make: Any
) -> None:
    with transaction(engine) as connection:
        here, there = register(connection, HERE, **RATES), register(connection, THERE, **RATES)
        store(connection, make, here, "conv", 1e-3)
        store(connection, make, there, "pool", 2e-3)
        build = build_of_a_job(connection, make, here)
        pins = {pin["workload"]: pin for pin in build.schedules}
        labels = {graph: label_of(pins[make.workload(connection, graph).sha256]) for graph in ("conv", "pool", "dense")}
        assert labels == {"conv": "measured", "pool": "transferred", "dense": "predicted"}

        transferred, predicted = gather(connection, build)
        assert (transferred.trace, predicted.trace) == ([["trace"], ["of pool"]], None)
        request = request_of(context(), connection, predicted)
        assert (request.workload.sha256, request.target, request.known) == (predicted.pin["workload"], HERE, ())
        for pin in (transferred.pin, predicted.pin):
            assert 0 < pin["expected_low_s"] < pin["expected_latency_s"] < pin["expected_high_s"]


def test_nothing_is_expected_of_a_target_whose_rates_nobody_knows(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        here, there = register(connection, HERE), register(connection, THERE, **RATES)
        store(connection, make, there, "pool", 2e-3)
        found = gather(connection, build_of_a_job(connection, make, here))
        assert [label_of(one.pin) for one in found] == ["predicted", "transferred", "predicted"]
        assert not any("expected_latency_s" in one.pin for one in found)


def test_what_is_expected_follows_the_records_that_a_project_may_see(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        here, there = register(connection, HERE, **RATES), register(connection, THERE, **RATES)
        target, workload = targets.get_by_key(connection, here), make.workload(connection, "pool")
        other = projects.create(connection, "other")
        before = expecting.expected(connection, other.key, target, [workload])[workload.key]
        records.store(
            connection,
            target_key=there,
            workload_key=workload.key,
            project_key=ME,
            visibility="project",
            candidates=[make.candidate("private", make.full(1000 * before.latency_s))],
        )
        unseen = expecting.expected(connection, other.key, target, [workload])[workload.key]
        seen = expecting.expected(connection, ME, target, [workload])[workload.key]
        assert unseen.latency_s == before.latency_s
        assert seen.latency_s > 10 * before.latency_s


def test_pins_of_earlier_versions_are_measured_and_traces_are_kept_only_where_no_record_has_them() -> None:
    old = {"record": "rec_1", "workload": "w", "schedule_sha256": "s", "latency_s": 1.0}
    assert label_of(old) == "measured"
    assert "trace" not in stored({**old, "trace": [[], []]})
    predicted = {"label": "predicted", "workload": "w", "schedule_sha256": "s", "trace": [[], []]}
    assert stored(predicted) == predicted
    (schedule,) = schedules_of([predicted, default_pin("v", "it crashes")])
    assert (schedule.workload_sha256, schedule.label, schedule.tried) == ("w", "predicted", False)
