"""Correcting a model by a workload's own records."""

from __future__ import annotations

import time

import numpy as np

from crosstune.cost_model.attention.correction import Correction, taking_turns
from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES
from crosstune.cost_model.features import VECTOR_LENGTH
from crosstune.cost_model.metrics import pairwise_accuracy_without_ties


def records(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, a model's scores that see half of what decides the speed, and speeds."""
    chance = np.random.default_rng(seed)
    rows = chance.uniform(0, 10, (count, VECTOR_LENGTH)).astype(np.float32)
    speeds = ((rows[:, 0] + rows[:, 1]) / 20).astype(np.float32)
    return rows, 3.0 * rows[:, 0].astype(np.float64) - 7.0, speeds


def accuracy(scores: np.ndarray, speeds: np.ndarray) -> float:
    found = pairwise_accuracy_without_ties(scores, speeds)
    assert found is not None
    return found


def test_records_teach_what_the_model_does_not_see() -> None:
    rows, scores, speeds = records(200)
    correction = Correction()
    correction.fit(rows, scores, speeds)
    rows, scores, speeds = records(100, seed=1)
    assert accuracy(correction.applied(rows, scores), speeds) > accuracy(scores, speeds) + 0.1


def test_two_opinions_take_turns() -> None:
    one, other = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = taking_turns(one, other)
    assert np.argsort(-found).tolist() == [0, 4, 1, 3, 2]
    assert sorted(found) == sorted(one)


def test_opinions_that_agree_leave_the_order_as_it_is() -> None:
    speeds = np.random.default_rng(0).uniform(size=50)
    np.testing.assert_array_equal(taking_turns(speeds, 7.0 * speeds), speeds)


def test_with_few_records_the_model_is_believed() -> None:
    rows, scores, speeds = records(FEWEST_EXAMPLES - 1)
    correction = Correction()
    correction.fit(rows, scores, speeds)
    np.testing.assert_array_equal(correction.applied(rows, scores), scores)


def test_records_that_are_all_alike_change_nothing() -> None:
    rows, scores, _ = records(40)
    correction = Correction()
    correction.fit(rows, scores, np.zeros(40, dtype=np.float32))
    np.testing.assert_array_equal(correction.applied(rows, scores), scores)


def test_a_model_that_ranks_the_wrong_way_round_is_not_followed() -> None:
    rows, scores, speeds = records(200)
    correction = Correction()
    correction.fit(rows, -scores, speeds)
    rows, scores, speeds = records(100, seed=1)
    assert accuracy(correction.applied(rows, -scores), speeds) > 0.6


def test_a_model_that_records_cannot_better_is_left_as_it_is() -> None:
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(60, VECTOR_LENGTH)).astype(np.float32)  # tell nothing
    scores = chance.uniform(size=60)
    correction = Correction()
    correction.fit(rows, scores, scores.astype(np.float32))
    np.testing.assert_array_equal(correction.applied(rows, scores), scores)


def test_a_thousand_records_are_checked_and_learnt_in_two_seconds_of_one_core() -> None:
    rows, scores, speeds = records(1000)
    started_s = time.process_time()
    Correction().fit(rows, scores, speeds)
    assert time.process_time() - started_s < 2.0
