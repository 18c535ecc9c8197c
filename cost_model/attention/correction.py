"""What the model's scores get wrong on one workload and target, learnt from its own records in milliseconds.

Scores become speeds by a straight line through the records, and trees over statement features learn what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, predict
from crosstune.cost_model.ranker import Scores

BAGS = 4
ROUNDS = 40
SETTINGS = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_bin": 32,
    "max_depth": 3,
    "eta": 0.15,
    "subsample": 0.7,
    "colsample_bytree": 0.2,
    "min_child_weight": 2.0,
    "nthread": 1,
    "verbosity": 0,
}
"""Shallow trees, several averaged: with few records, deeper ones lose as much of the model's order as they gain."""


class Correction:
    """Nothing is corrected until `fit` has seen enough records that ran."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._line: tuple[float, float] | None = None
        self._boosters: list[Any] = []

    def fit(self, rows: NDArray[np.float32], scores: Scores, speeds: NDArray[np.float32]) -> None:
        """`rows`: (n, VECTOR_LENGTH); `speeds`: relative to the best, 0 for failures."""
        self._line, self._boosters = None, []
        if len(speeds) < FEWEST_EXAMPLES or not np.ptp(speeds):
            return
        self._line = _line(scores, speeds)
        data = xgboost.QuantileDMatrix(
            rows, speeds, base_margin=self._margin(scores), max_bin=SETTINGS["max_bin"], nthread=1
        )
        settings = [{**SETTINGS, "seed": BAGS * self._seed + bag} for bag in range(BAGS)]
        self._boosters = [xgboost.train(each, data, ROUNDS) for each in settings]

    def applied(self, rows: NDArray[np.float32], scores: Scores) -> Scores:
        if self._line is None:
            return scores
        found: Scores = np.mean([predict(each, rows, self._margin(scores)) for each in self._boosters], axis=0)
        return found

    def _margin(self, scores: Scores) -> NDArray[np.float32]:
        assert self._line is not None
        slope, level = self._line
        return (slope * scores + level).astype(np.float32)


def _line(scores: Scores, speeds: NDArray[np.float32]) -> tuple[float, float]:
    """Slope and level by least squares; a model that ranks the wrong way round is not followed."""
    spread = float(np.var(scores))
    together = float(np.mean((scores - scores.mean()) * (speeds - speeds.mean())))
    slope = max(0.0, together / spread) if spread > 0 else 0.0
    return slope, float(speeds.mean()) - slope * float(scores.mean())
