"""Rankers behind the protocol: neutral at first, then in the right order, failures last."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crosstune.cost_model.baselines.draft_ranker import DraftRanker
from crosstune.cost_model.baselines.xgboost_ranker import XgboostRanker
from crosstune.cost_model.features import STATEMENT_COLUMNS
from crosstune.cost_model.ranker import Context, Example, NeutralRanker, Ranker, labels
from crosstune.cost_model.rankers import NAMES, make_ranker


def program(speed: float, seed: int) -> np.ndarray:
    """Features of a make-believe program whose first column tells its speed."""
    features = np.random.default_rng(seed).uniform(0, 10, (3, STATEMENT_COLUMNS)).astype(np.float32)
    features[:, 0] = speed
    return features


def examples(count: int, group: str = "g", scale_s: float = 1e-3) -> list[Example]:
    speeds = np.random.default_rng(7).uniform(1, 10, count)
    return [Example(group, program(speed, seed), scale_s / speed) for seed, speed in enumerate(speeds)]


@pytest.mark.parametrize("name", NAMES)
def test_every_ranker_keeps_the_protocol(name: str) -> None:
    ranker = make_ranker(name, seed=1)
    assert isinstance(ranker, Ranker)
    assert ranker.informed == (name == "attention")  # it was trained before
    ranker.fit(examples(40))
    scores = ranker.score([program(1, 1), program(9, 2)], [Context(), Context(target={"kind": "llvm"})])
    assert scores.shape == (2,)
    assert ranker.score([]).shape == (0,)


def test_an_unknown_ranker_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="xgboost"):
        make_ranker("oracle", seed=0)


def test_labels_are_relative_speeds_within_a_group_and_zero_for_failures() -> None:
    group = [Example("a", program(1, 1), latency_s) for latency_s in (2e-3, 1e-3, None)]
    other = [Example("b", program(1, 1), 5.0), Example("c", program(1, 1), None)]
    assert labels([*group, *other]).tolist() == [0.5, 1.0, 0.0, 1.0, 0.0]


def test_with_few_examples_the_order_is_random_but_seeded() -> None:
    candidates = [program(speed, speed) for speed in range(10)]
    one, same, other = XgboostRanker(seed=1), XgboostRanker(seed=1), XgboostRanker(seed=2)
    for ranker in (one, same, other):
        ranker.fit(examples(5))
        assert not ranker.informed
    first = one.score(candidates)
    assert first.tolist() == same.score(candidates).tolist() == NeutralRanker(1).score(candidates).tolist()
    assert first.tolist() != other.score(candidates).tolist()


def test_trees_find_the_faster_programs() -> None:
    ranker = XgboostRanker()
    ranker.fit(examples(200) + examples(100, "slow network", scale_s=5.0))
    assert ranker.informed
    speeds = np.linspace(1, 10, 30)
    scores = ranker.score([program(speed, 1000 + seed) for seed, speed in enumerate(speeds)])
    assert np.corrcoef(speeds, scores)[0, 1] > 0.9


def test_programs_like_failed_ones_come_last() -> None:
    failures = [Example("g", program(50, 500 + seed), None) for seed in range(40)]
    ranker = XgboostRanker()
    ranker.fit(examples(80) + failures)
    assert ranker.score([program(50, 1)])[0] < ranker.score([program(2, 2)])[0] + 0.1
    assert ranker.score([program(50, 1)])[0] < ranker.score([program(9, 3)])[0]


def test_nothing_is_learnt_from_failures_alone() -> None:
    ranker = XgboostRanker()
    ranker.fit([Example("g", program(1, seed), None) for seed in range(50)])
    assert not ranker.informed


def test_fitting_again_forgets_the_first_lesson() -> None:
    ranker = XgboostRanker()
    ranker.fit(examples(50))
    ranker.fit([])
    assert not ranker.informed


def test_a_thousand_examples_are_learnt_in_a_blink() -> None:
    many = examples(1000)
    ranker = XgboostRanker()
    started_s = time.process_time()
    ranker.fit(many)
    assert time.process_time() - started_s < 2.0  # 0.3 s on an idle core; tests share theirs


def test_drafts_are_ordered_by_their_decisions() -> None:
    random = np.random.default_rng(3)
    rows = [row.astype(np.float32) for row in random.uniform(0, 6, (100, 5))]
    model = DraftRanker()
    assert model.score(rows).tolist() == [0.0] * 100
    model.fit(rows, [0.0 if row[1] > 5.5 else 1 + row[0] for row in rows])
    assert model.informed
    slow, fast = np.array([0.5, 1, 1, 1, np.nan]), np.array([5.5, 1, 1, 1, np.nan])
    scores = model.score([slow.astype(np.float32), fast.astype(np.float32)])
    assert scores[1] > scores[0]
