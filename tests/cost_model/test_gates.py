"""Which versions may replace which."""

from __future__ import annotations

import pytest

from crosstune.cost_model.evaluation import GroupScore
from crosstune.cost_model.gates import LEAST_GROUPS, compare
from crosstune.cost_model.hold_out import JUDGED_EVERY, is_judged
from tests.conftest import sha

METRICS = ("top1", "pairwise")


def scores(value: float, targets: tuple[str, ...] = ("here", "there"), workloads: int = 8) -> list[GroupScore]:
    """Workloads differ a little from each other."""
    return [
        GroupScore(f"workload {number}", target, {"top1": value + 0.01 * number, "pairwise": value})
        for target in targets
        for number in range(workloads)
    ]


def test_a_version_that_is_better_everywhere_may_replace_the_other() -> None:
    found = compare(scores(0.9), scores(0.8), METRICS)
    assert found.reasons == ()
    assert found.overall["top1"].mean == pytest.approx(0.1)
    assert set(found.by_target) == {"here", "there"} and found.groups == 16


def test_a_version_that_is_no_better_may_not() -> None:
    (reason,) = compare(scores(0.8), scores(0.8), METRICS).reasons
    assert "no better" in reason


def test_better_in_the_mean_is_not_enough_where_one_target_loses() -> None:
    mixed = [*scores(0.99, ("here",)), *scores(0.70, ("there",))]
    found = compare(mixed, scores(0.8), METRICS)
    assert found.overall["top1"].mean > 0
    (reason,) = found.reasons
    assert "worse on there" in reason


def test_a_loss_within_the_noise_of_a_target_is_none() -> None:
    wobbly = [
        GroupScore(f"workload {number}", "there", {"top1": 0.8 + (0.1 if number % 2 else -0.11), "pairwise": 0.5})
        for number in range(8)
    ]
    steady = [GroupScore(f"workload {number}", "there", {"top1": 0.8, "pairwise": 0.5}) for number in range(8)]
    found = compare([*scores(0.9, ("here",)), *wobbly], [*scores(0.8, ("here",)), *steady], METRICS)
    assert found.by_target["there"].mean < 0
    assert found.reasons == ()


def test_too_few_judged_workloads_say_nothing() -> None:
    few = LEAST_GROUPS - 1
    (reason,) = compare(scores(0.9, ("here",), few), scores(0.1, ("here",), few), METRICS).reasons
    assert f"only {few} workloads" in reason
    (reason,) = compare([], [], METRICS).reasons
    assert "only 0 workloads" in reason


def test_one_workload_in_five_is_set_aside_to_judge_by_whatever_else_is_there() -> None:
    share = sum(is_judged(sha("workload", number)) for number in range(2000)) / 2000
    assert abs(share - 1 / JUDGED_EVERY) < 0.03
