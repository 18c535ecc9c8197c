"""What the model's scores get wrong on one workload and target, learnt from its own records in milliseconds.

Scores become speeds by a straight line through the records, and shallow trees over statement features learn what is
left. Beside them stand trees that know the records alone. How much each counts is what would have predicted held-back
records best: a model that is wrong about a workload fades as records come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, booster_settings, predict, train
from crosstune.cost_model.ranker import Scores

FOLDS = 4
MANY = 256
"""Records of which one fold tells enough."""
WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Of the corrected model against the records alone; the first of equals is taken."""
BAGS = 2
ROUNDS = 40
SETTINGS = {"max_depth": 3, "eta": 0.15, "subsample": 0.7, "colsample_bytree": 0.2, "min_child_weight": 2.0}
"""Shallow trees, averaged: with few records, deeper ones lose as much of the model's order as they gain."""
Rows = NDArray[np.float32]
"""(n, VECTOR_LENGTH)"""
Speeds = NDArray[np.float32]
"""(n,) relative to the best, 0 for failures"""


class Correction:
    """Nothing is corrected until `fit` has seen enough records that ran."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._fitted: _Fitted | None = None
        self.weight = 1.0
        """Of the corrected model, see WEIGHTS."""

    def fit(self, rows: Rows, scores: Scores, speeds: Speeds) -> None:
        """`scores` (n,) are the model's."""
        self._fitted, self.weight = None, 1.0
        if len(speeds) < FEWEST_EXAMPLES or not np.ptp(speeds):
            return
        self._fitted = _Fitted(rows, scores, speeds, self._seed)
        self.weight = _best_weight(rows, scores, speeds, self._seed)

    def applied(self, rows: Rows, scores: Scores) -> Scores:
        if self._fitted is None:
            return scores
        corrected, alone = self._fitted.predict(rows, scores)
        found: Scores = self.weight * corrected + (1.0 - self.weight) * alone
        return found


class _Fitted:
    """Both models of the same records."""

    def __init__(self, rows: Rows, scores: Scores, speeds: Speeds, seed: int) -> None:
        self._slope, self._level = _line(scores, speeds)
        margin = self._margin(scores)
        settings = [{**booster_settings(BAGS * seed + bag, threads=1), **SETTINGS} for bag in range(BAGS)]
        data = xgboost.QuantileDMatrix(rows, speeds, base_margin=margin, max_bin=settings[0]["max_bin"], nthread=1)
        self._correcting: Sequence[Any] = [xgboost.train(each, data, ROUNDS) for each in settings]
        self._alone = train(rows, speeds, seed, threads=1)

    def predict(self, rows: Rows, scores: Scores) -> tuple[Scores, Scores]:
        """(n,) speeds by the corrected model, and by the records alone."""
        margin = self._margin(scores)
        corrected: Scores = np.mean([predict(each, rows, margin) for each in self._correcting], axis=0)
        return corrected, predict(self._alone, rows)

    def _margin(self, scores: Scores) -> NDArray[np.float32]:
        return (self._slope * scores + self._level).astype(np.float32)


def _best_weight(rows: Rows, scores: Scores, speeds: Speeds, seed: int) -> float:
    """The weight with the smallest squared error on records that were held back in turn."""
    fold_of = np.random.default_rng(seed).permutation(len(speeds)) % FOLDS
    errors = np.zeros(len(WEIGHTS))
    for fold in range(FOLDS if len(speeds) <= MANY else 1):
        held = fold_of == fold
        fitted = _Fitted(rows[~held], scores[~held], speeds[~held], seed)
        corrected, alone = fitted.predict(rows[held], scores[held])
        mixed = [weight * corrected + (1.0 - weight) * alone for weight in WEIGHTS]
        errors += [float(np.sum(np.square(each - speeds[held]))) for each in mixed]
    return WEIGHTS[int(np.argmin(errors))]


def _line(scores: Scores, speeds: Speeds) -> tuple[float, float]:
    """Slope and level by least squares; a model that ranks the wrong way round is not followed."""
    spread = float(np.var(scores))
    together = float(np.mean((scores - scores.mean()) * (speeds - speeds.mean())))
    slope = max(0.0, together / spread) if spread > 0 else 0.0
    return slope, float(speeds.mean()) - slope * float(scores.mean())
