"""Bests that were measured long ago are measured again, and lose their place when they do not hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from crosstune.db.engine import reading, transaction
from crosstune.db.repositories import devices, listing, projects, records, schedules, targets
from crosstune.db.tables import Step
from crosstune.service.retention import DAY_S
from crosstune.service.settings import Settings
from crosstune.service.steps import rechecking
from crosstune.service.worker import Worker
from crosstune.tuner.contracts import Attempt, Quality, TargetSpec

OLD_S = time.time() - 100 * DAY_S


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> Iterator[Worker]:
    url = engine.url.render_as_string(hide_password=False)
    made = Worker(Settings(data_dir=tmp_path / "data", database_url=url, recheck_days=30), engine)
    made.context.__dict__["runner"] = NoRunner()
    yield made
    made.context.close()


class NoRunner:
    def close(self) -> None:
        """Nothing is kept."""


def fill(engine: Engine, make: Any, worker: Worker, graphs: int) -> int:
    """Bests of 1 ms that are old, a fresh second of each, and one best that is fresh; the key of the target."""
    spec = TargetSpec("llvm", "x86-64", 2, "test")
    with transaction(engine) as connection:
        target, _ = targets.register(connection, identity=spec.identity, name="here", spec=spec.to_json())
        devices.stand_for(connection, worker.context.identity.device_key, target.key)
        for graph in range(graphs + 1):
            at = OLD_S if graph < graphs else time.time()
            records.store(
                connection,
                target_key=target.key,
                workload_key=make.workload(connection, f"graph {graph}").key,
                project_key=projects.get(connection).key,
                candidates=[
                    make.candidate("best", make.full(1e-3, measured_at=at)),
                    make.candidate("second", make.full(2e-3)),
                ],
            )
        return target.key


def recheck_steps(engine: Engine, state: str) -> list[str]:
    with reading(engine) as connection:
        query = select(Step.id).where(Step.kind == "recheck", Step.state == state).order_by(Step.key)
        return list(connection.execute(query).scalars())


def schedule(engine: Engine, worker: Worker) -> None:
    with transaction(engine) as connection:
        rechecking.schedule(connection, worker._settings, worker.context.identity.device_key)


def test_old_bests_are_measured_again_and_one_that_does_not_hold_loses_its_place(
    engine: Engine, make: Any, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def slower(builder: Any, runner: Any, request: Any, trace: Any, device: Any) -> Attempt:
        measured.append(trace)
        return Attempt((9e-3,) * 9, Quality.FULL, conditions={})

    monkeypatch.setattr(rechecking, "measure_again", slower)
    graphs = rechecking.BATCH + 1
    target_key = fill(engine, make, worker, graphs)
    schedule(engine, worker)
    schedule(engine, worker)
    assert len(recheck_steps(engine, "queued")) == 1, "one waits already"
    while waiting := recheck_steps(engine, "queued"):
        worker.run_step(waiting[0])
    assert len(measured) == graphs and len(recheck_steps(engine, "done")) == 2
    with reading(engine) as connection:
        assert listing.stale_bests(connection, target_key, time.time() - 30 * DAY_S, 10) == []
        project = projects.get(connection).key
        keys = [make.workload(connection, f"graph {graph}").key for graph in (0, graphs)]
        best = schedules.best(connection, target_key, keys, project)
    assert [best[key].latency_s for key in keys] == [2e-3, 1e-3]


def test_without_the_setting_nothing_is_measured_again(engine: Engine, make: Any, worker: Worker) -> None:
    fill(engine, make, worker, 1)
    with transaction(engine) as connection:
        off = worker._settings.model_copy(update={"recheck_days": None})
        rechecking.schedule(connection, off, worker.context.identity.device_key)
    assert recheck_steps(engine, "queued") == []
