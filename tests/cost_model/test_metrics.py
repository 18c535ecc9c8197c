"""Metrics: TenSet's by its definitions, and the properties that ours must have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.cost_model import metrics
from crosstune.cost_model.metrics import Pool, Values

POOLS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n),
    )
)


def values(*numbers: float) -> Values:
    return np.array(numbers, dtype=np.float64)


@given(POOLS)
def test_pairwise_accuracy_is_that_of_tensets_matrices(pool: tuple[list[float], list[float]]) -> None:
    predicted, labels = (np.array(one) for one in pool)
    i, j = np.triu_indices(len(labels), k=1)
    wanted = ((predicted[i] > predicted[j]) == (labels[i] > labels[j])).mean()
    assert metrics.pairwise_accuracy(predicted, labels) == pytest.approx(wanted)


def test_tensets_pairwise_accuracy_depends_on_the_order_of_ties_and_ours_does_not() -> None:
    labels, constant = values(0.2, 0.5, 1.0), values(7, 7, 7)
    assert metrics.pairwise_accuracy(constant, labels) == 1.0
    assert metrics.pairwise_accuracy(constant, labels[::-1]) == 0.0
    assert metrics.pairwise_accuracy_without_ties(constant, labels) == 0.5
    assert metrics.pairwise_accuracy_without_ties(constant, labels[::-1]) == 0.5


@given(POOLS)
def test_a_perfect_model_is_perfect_and_its_opposite_is_not(pool: tuple[list[float], list[float]]) -> None:
    labels = np.array(pool[0])
    if len(set(labels)) < 2:
        assert metrics.pairwise_accuracy_without_ties(labels, labels) is None
        return
    assert metrics.pairwise_accuracy_without_ties(labels, labels) == 1.0
    assert metrics.pairwise_accuracy_without_ties(-labels, labels) == 0.0
    assert metrics.top_k(labels, labels, 1) == pytest.approx(1.0)
    assert metrics.peak(labels, labels, 1) == 1.0


def test_peak_averages_the_running_maximum() -> None:
    assert metrics.peak(values(3, 2, 1), values(0.2, 0.8, 1.0), 2) == pytest.approx((0.2 + 0.8) / 2)
    assert metrics.top_k(values(3, 2, 1), values(0.2, 0.8, 1.0), 2) == pytest.approx(0.8)


def test_recall_counts_the_best_that_were_found() -> None:
    assert metrics.top_k_recall(values(3, 2, 1, 0), values(1.0, 0.1, 0.9, 0.2), 2) == 0.5


@given(POOLS, st.integers(1, 8))
def test_the_expected_choice_of_random_is_the_mean_over_all_choices(
    pool: tuple[list[float], list[float]], k: int
) -> None:
    labels = np.array(pool[0])
    drawn = min(k, len(labels))
    every = [max(choice) for choice in itertools.combinations(labels.tolist(), drawn)]
    assert metrics.expected_maximum(labels, drawn) == pytest.approx(np.mean(every))


@given(POOLS, st.integers(1, 8))
def test_equal_predictions_score_by_what_would_be_drawn_from_them(
    pool: tuple[list[float], list[float]], k: int
) -> None:
    predicted, labels = (np.array(one) for one in pool)
    if labels.max() == 0.0:
        return
    orders = itertools.permutations(range(len(labels)))
    scores = [labels[sorted(order, key=lambda i: -predicted[i])[:k]].max() for order in orders]
    assert metrics.top_k(predicted, labels, k) == pytest.approx(np.mean(scores) / labels.max())
    assert metrics.top_k(np.zeros(len(labels)), labels, k) == pytest.approx(metrics.random_top_k(labels, k))


def test_a_network_weighs_its_tasks_and_floors_failures() -> None:
    slow = Pool(values(1, 0), values(0.5, 1.0), fastest_s=0.010, weight=2)
    fast = Pool(values(0, 1), values(0.5, 1.0), fastest_s=0.001)
    assert metrics.network_top_k([slow, fast], 1) == pytest.approx(0.021 / 0.041)
    assert metrics.network_top_k([slow, fast], 2) == 1.0
    failed = Pool(values(1, 0), values(0.0, 1.0))
    assert metrics.network_top_k([failed], 1) == pytest.approx(1e-5)


def test_averages_are_weighted_by_the_size_of_the_pool() -> None:
    right, wrong = Pool(values(1, 2, 3, 4), values(0.1, 0.2, 0.3, 1.0)), Pool(values(2, 1), values(0.5, 1.0))
    assert metrics.average([right, wrong], metrics.pairwise_accuracy) == pytest.approx(4 / 6)
    assert metrics.average_root_mean_square_error([wrong]) == pytest.approx(np.sqrt((1.5**2) / 2))


def test_skill_is_one_at_the_ceiling_and_zero_at_random() -> None:
    assert metrics.skill(0.9, 0.5, 0.9) == 1.0
    assert metrics.skill(0.5, 0.5, 0.9) == 0.0
    assert metrics.skill(0.9, 1.0, 1.0) is None


def test_the_remaining_metrics_of_tenset() -> None:
    labels = values(0.5, 1.0)
    assert metrics.r_squared(labels, labels) == 1.0
    assert metrics.r_squared(values(5, 5), values(1, 1)) == 1.0
    assert metrics.mean_relative_error(values(0.4, 1.1), labels) == pytest.approx(0.15)
