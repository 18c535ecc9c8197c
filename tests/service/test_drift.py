"""Every measured batch is compared with the order that the model had put it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import cost_models, ranking_checks, steps
from crosstune.db.repositories.ranking_checks import Ranked
from crosstune.service import drift
from crosstune.service.settings import Settings, read_settings
from crosstune.tuner.contracts import Attempt, CandidateResult, Quality

LATENCIES_S = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)


def batch(scores: list[float | None], latencies_s: tuple[float, ...] = LATENCIES_S) -> list[CandidateResult]:
    return [
        CandidateResult([], str(n), str(n), None, score, (Attempt((latency_s,), Quality.QUICK),))
        for n, (score, latency_s) in enumerate(zip(scores, latencies_s, strict=True))
    ]


def test_a_perfect_order_has_no_regret() -> None:
    found = drift.ranked(batch([5, 4, 3, 2, 1]))
    assert found == Ranked(5, 1.0, 0.0, 0.0)


def test_a_reversed_order_costs_what_its_first_is_slower_by() -> None:
    found = drift.ranked(batch([1, 2, 3, 4, 5]))
    assert found is not None
    assert (found.pairwise, found.regret_top5) == (0.0, 0.0)
    assert found.regret_top1 == pytest.approx(4.0)


def test_what_no_model_scored_does_not_count_and_small_batches_say_nothing() -> None:
    assert drift.ranked(batch([None, 4, 3, 2, 1])) == Ranked(4, 1.0, 0.0, 0.0)
    assert drift.ranked(batch([None, None, 3, 2, 1])) is None


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return read_settings(data_dir=tmp_path, **changes)


def measure(connection: Connection, make: Any, pairwise: float, times: int, target: str = "here") -> None:
    for number in range(times):
        ranking_checks.add(
            connection,
            Ranked(8, pairwise, 0.1, 0.05),
            target_key=make.target(connection, target).key,
            workload_key=make.workload(connection, "pool" if number % 2 else "conv").key,
            model_key=None,
            step_key=None,
            now=1000.0 + number,
        )


def test_a_target_drifts_when_enough_of_its_batches_were_ranked_badly(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        measure(connection, make, 0.4, drift.LEAST_CHECKS)
        measure(connection, make, 0.4, drift.LEAST_CHECKS - 1, "too few")
        measure(connection, make, 0.7, drift.LEAST_CHECKS, "fine")
        found = [one for one in drift.entries(connection, 0.55) if one.operator is None]
        names = {make.target(connection, name).id: name for name in ("here", "too few", "fine")}
    assert {names[one.target]: one.drifting for one in found} == {"here": True, "too few": False, "fine": False}
    assert {one.cost_models[0] for one in found} == {"shipped"}


def test_only_the_newest_batches_count(engine: Engine, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "WINDOW", 10)
    with transaction(engine) as connection:
        measure(connection, make, 0.1, 20)
        measure(connection, make, 0.9, 10)
        overall, *operators = drift.entries(connection, 0.55)
    assert (overall.checks, overall.pairwise) == (10, pytest.approx(0.9))
    assert sum(one.checks for one in operators) == 10 and len(operators) == 2


def test_drift_begins_one_retraining_where_that_is_asked_for(engine: Engine, make: Any, tmp_path: Path) -> None:
    asked, not_asked = settings(tmp_path, retrain_on_drift=True), settings(tmp_path)
    with transaction(engine) as connection:
        assert drift.retrain_where_needed(connection, asked) is None, "nothing was measured"
        measure(connection, make, 0.4, drift.LEAST_CHECKS)
        assert drift.retrain_where_needed(connection, not_asked) is None
        version = drift.retrain_where_needed(connection, asked)
        assert version is not None
        assert [step.kind for step in steps.runnable(connection, 10)] == ["retrain"]
        assert drift.retrain_where_needed(connection, asked) is None, "one is in training"
        cost_models.end(connection, version, cost_models.CostModelStatus.FAILED, "too little")
        assert drift.retrain_where_needed(connection, asked) is None, "one began lately"
        later_s = cost_models.get(connection, version).created_at + drift.RETRAIN_PAUSE_S + 1
        assert drift.retrain_where_needed(connection, asked, later_s) is not None
