"""A small model over the sampling decisions of one workload's schedules, for drafts that have no program yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, predict, train
from crosstune.cost_model.ranker import Scores


class DraftRanker:
    """Trees over decision vectors; microseconds a draft, so thousands can be looked at before any is lowered."""

    def __init__(self, seed: int = 0, threads: int = 1) -> None:
        self._seed, self._threads = seed, threads
        self._booster: Any = None

    @property
    def informed(self) -> bool:
        return self._booster is not None

    def fit(self, vectors: Sequence[NDArray[np.float32]], scores: Sequence[float]) -> None:
        """`vectors`: one (column,) row a schedule, all of one length, NaN where a schedule lacks the decision.
        `scores`: of any scale, higher = faster. Uninformed when there are few, or all are equal."""
        self._booster = None
        if len(vectors) >= FEWEST_EXAMPLES and np.ptp(scores) > 0:
            self._booster = train(np.stack(vectors), np.array(scores, dtype=np.float32), self._seed, self._threads)

    def score(self, vectors: Sequence[NDArray[np.float32]]) -> Scores:
        """Higher = faster; zeros while uninformed."""
        if self._booster is None or not vectors:
            return np.zeros(len(vectors))
        return predict(self._booster, np.stack(vectors))
