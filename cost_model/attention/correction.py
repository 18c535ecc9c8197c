"""What the model's scores get wrong on one workload and target, learnt from its own records in milliseconds.

Scores become speeds by a straight line through the records, and shallow trees over statement features learn what is
left. Beside them stand trees that know the records alone. The two take turns: half of what comes first is what either
puts first. So a model that is right about a workload leads from the start, and one that is wrong costs half of the
trials, not all. Weighing them by how well each predicts held-back records was worse: on a convolution of ResNet-50 and
one of SqueezeNet, the best of 64 and of 48 trials was 2.4 and 1.2 % slower (three seeds each), for records are few and
those of the model's own choice say little of what it passes over.

Where both together rank held-back records clearly worse than the model does alone, its scores are left as they are. On
programs of held-out networks (244 groups of some 33, 16 records each, by hand) that was so in two of five groups. The
first choice among the others was then .840 of the pool's best, .805 with the model alone, .831 without the check;
pairwise accuracy .769, .771 and .754.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, booster_settings, predict, train
from crosstune.cost_model.metrics import pairwise_accuracy_without_ties
from crosstune.cost_model.ranker import Scores

FOLDS, MOST_CHECKED = 3, 96
"""Of the records, for the check whether correcting pays."""
LEAST_GAIN = -0.05
"""In pairwise accuracy: what is checked has learnt from a third fewer records than what will be used."""
BAGS = 2
ROUNDS = 40
SETTINGS = {"max_depth": 3, "eta": 0.15, "subsample": 0.7, "colsample_bytree": 0.2, "min_child_weight": 2.0}
"""Shallow trees, averaged: with few records, deeper ones lose as much of the model's order as they gain."""
Rows = NDArray[np.float32]
"""(n, VECTOR_LENGTH)"""
Speeds = NDArray[np.float32]
"""(n,) relative to the best, 0 for failures"""


class Correction:
    """Of one set of records; nothing is corrected until there are enough of them."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._pays: bool | None = None
        self._fitted: _Fitted | None = None

    def fit(self, rows: Rows, scores: Scores, speeds: Speeds) -> None:
        """`scores` (n,) are the model's; they may differ between calls. Whether correcting pays is checked once."""
        if self._pays is None:
            enough = len(speeds) >= FEWEST_EXAMPLES and bool(np.ptp(speeds))
            self._pays = enough and self._gain(rows, scores, speeds) >= LEAST_GAIN
        self._fitted = _Fitted(rows, scores, speeds, self._seed) if self._pays else None

    def applied(self, rows: Rows, scores: Scores) -> Scores:
        if self._fitted is None:
            return scores
        return self._fitted.applied(rows, scores)

    def _gain(self, rows: Rows, scores: Scores, speeds: Speeds) -> float:
        """In pairwise accuracy over the model's, on records that were not learnt from."""
        chosen = np.random.default_rng(self._seed).permutation(len(speeds))[:MOST_CHECKED]
        rows, scores, speeds = rows[chosen], scores[chosen], speeds[chosen]
        fold_of = np.arange(len(chosen)) % FOLDS
        gains = []
        for fold in range(FOLDS):
            held, taught = fold_of == fold, fold_of != fold
            fitted = _Fitted(rows[taught], scores[taught], speeds[taught], self._seed)
            corrected = _accuracy(fitted.applied(rows[held], scores[held]), speeds[held])
            gains.append(corrected - _accuracy(scores[held], speeds[held]))
        return float(np.mean(gains))


def _accuracy(scores: Scores, speeds: Speeds) -> float:
    found = pairwise_accuracy_without_ties(scores, speeds.astype(np.float64))
    return 0.0 if found is None else found


def taking_turns(one: Scores, other: Scores) -> Scores:
    """What either puts first comes first, by turns; as speeds of `one`."""
    places = np.minimum(2 * _places(one), 2 * _places(other) + 1)
    found = np.empty_like(one)
    found[np.argsort(places, kind="stable")] = np.sort(one)[::-1]
    return found


def _places(speeds: Scores) -> NDArray[np.int64]:
    return np.argsort(np.argsort(-speeds, kind="stable"), kind="stable")


class _Fitted:
    """Both models of the same records."""

    def __init__(self, rows: Rows, scores: Scores, speeds: Speeds, seed: int) -> None:
        self._slope, self._level = _line(scores, speeds)
        margin = self._margin(scores)
        settings = [{**booster_settings(BAGS * seed + bag, threads=1), **SETTINGS} for bag in range(BAGS)]
        data = xgboost.QuantileDMatrix(rows, speeds, base_margin=margin, max_bin=settings[0]["max_bin"], nthread=1)
        self._correcting: Sequence[Any] = [xgboost.train(each, data, ROUNDS) for each in settings]
        self._alone = train(rows, speeds, seed, threads=1)

    def applied(self, rows: Rows, scores: Scores) -> Scores:
        """(n,) speeds by which the corrected model and the records alone take turns."""
        margin = self._margin(scores)
        corrected: Scores = np.mean([predict(each, rows, margin) for each in self._correcting], axis=0)
        return taking_turns(corrected, predict(self._alone, rows))

    def _margin(self, scores: Scores) -> NDArray[np.float32]:
        return (self._slope * scores + self._level).astype(np.float32)


def _line(scores: Scores, speeds: Speeds) -> tuple[float, float]:
    """Slope and level by least squares; a model that ranks the wrong way round is not followed."""
    spread = float(np.var(scores))
    together = float(np.mean((scores - scores.mean()) * (speeds - speeds.mean())))
    slope = max(0.0, together / spread) if spread > 0 else 0.0
    return slope, float(speeds.mean()) - slope * float(scores.mean())
