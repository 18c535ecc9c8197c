"""Gradient-boosted trees over pooled statement features: the baseline that every other model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.features import VECTOR_LENGTH, Matrix, vector
from crosstune.cost_model.ranker import Context, Example, NeutralRanker, Scores, labels

FEWEST_EXAMPLES = 16
"""Below this many the trees fit noise; a random order explores better."""
ROUNDS = 32
LARGE = {"max_depth": 6, "eta": 0.1, "subsample": 0.8, "max_bin": 64}
LARGE_ROUNDS = 100
"""Better where there are ten thousand examples, and too slow for the rounds of a search."""


def booster_settings(seed: int, threads: int) -> dict[str, Any]:
    return {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "max_bin": 32,
        "max_depth": 5,
        "eta": 0.3,
        "min_child_weight": 1.0,
        "colsample_bytree": 0.4,
        "subsample": 0.9,
        "base_score": 0.3,
        "nthread": threads,
        "seed": seed,
        "verbosity": 0,
    }


class XgboostRanker:
    """Regression on relative speed within a group, failures as 0. Retrained whole: 1,000 examples take < 0.3 s.

    One thread by default: OpenMP's threads wait by spinning, which beside any other load costs seconds for what one
    thread does in a tenth.
    """

    def __init__(self, seed: int = 0, threads: int = 1, large: bool = False) -> None:
        """`large`: settings for sets of ten thousand examples or more."""
        self._seed, self._threads, self._large = seed, threads, large
        self._booster: Any = None
        self._neutral = NeutralRanker(seed)

    @property
    def informed(self) -> bool:
        return self._booster is not None

    def fit(self, examples: Sequence[Example]) -> None:
        self._booster = None
        if len(examples) < FEWEST_EXAMPLES or all(example.latency_s is None for example in examples):
            return
        rows = np.stack([vector(example.features) for example in examples])  # (example, VECTOR_LENGTH)
        self._booster = train(rows, labels(examples), self._seed, self._threads, self._large)

    def score(self, features: Sequence[Matrix], contexts: Sequence[Context] | None = None) -> Scores:
        if self._booster is None:
            return self._neutral.score(features)
        if not features:
            return np.zeros(0)
        rows = np.stack([vector(each) for each in features])
        assert rows.shape == (len(features), VECTOR_LENGTH)
        return predict(self._booster, rows)


def train(rows: NDArray[np.float32], targets: NDArray[np.float32], seed: int, threads: int, large: bool = False) -> Any:
    """A booster for rows (example, column) and targets (example,)."""
    settings = {**booster_settings(seed, threads), **(LARGE if large else {})}
    data = xgboost.QuantileDMatrix(rows, targets, max_bin=settings["max_bin"], nthread=threads)
    return xgboost.train(settings, data, num_boost_round=LARGE_ROUNDS if large else ROUNDS)


def predict(booster: Any, rows: NDArray[np.float32], margin: NDArray[np.float32] | None = None) -> Scores:
    """(rows,); `margin` is what the booster's answers are added to."""
    scores: Scores = booster.inplace_predict(rows, base_margin=margin).astype(np.float64)
    return scores
