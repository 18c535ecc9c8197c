"""What the model's scores get wrong on one workload and target, learnt from its own records in milliseconds.

Scores become speeds by a straight line through the records, and trees over statement features learn what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, predict, train
from crosstune.cost_model.ranker import Scores


class Correction:
    """Nothing is corrected until `fit` has seen enough records that ran."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._line: tuple[float, float] | None = None
        self._booster: Any = None

    def fit(self, rows: NDArray[np.float32], scores: Scores, speeds: NDArray[np.float32]) -> None:
        """`rows`: (n, VECTOR_LENGTH); `speeds`: relative to the best, 0 for failures."""
        self._line, self._booster = None, None
        if len(speeds) < FEWEST_EXAMPLES or not np.ptp(speeds):
            return
        self._line = _line(scores, speeds)
        self._booster = train(rows, speeds, self._seed, threads=1, margin=self._margin(scores))

    def applied(self, rows: NDArray[np.float32], scores: Scores) -> Scores:
        if self._line is None:
            return scores
        return predict(self._booster, rows, self._margin(scores))

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
