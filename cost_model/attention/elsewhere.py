"""What other targets' measurements of a workload say of its schedules: small trees over the schedules' numbers.

The speed of the most similar schedule on the nearest target (copying) uses one measurement of one target; trees use all
of them, and say something of schedules that were tried nowhere. They learn how many deviations a schedule is faster
than the mean of its target, from the primitives one by one, the primitives summed by kind, and the hardware. They need
no lowered program, so drafts are ranked too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES, booster_settings
from crosstune.cost_model.groups import Group, standardised
from crosstune.cost_model.tokens.hardware import HardwareToken, distance

TARGETS = 8
"""That are learnt from, the nearest; all count alike, since the hardware is told."""
BAGS = 2
ROUNDS = 60
SETTINGS = {
    "max_depth": 4,
    "eta": 0.15,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
    "min_child_weight": 2.0,
    "base_score": 0.0,
}


class ElsewhereTrees:
    """For the schedules of one workload on one target; they expect nothing where too little is known elsewhere."""

    def __init__(self, hardware: HardwareToken, others: Sequence[Group]) -> None:
        """`others`: the same workload on other targets."""
        self._hardware = hardware
        self._boosters: list[Any] = []
        near = sorted(others, key=lambda one: distance(hardware, one.hardware))[:TARGETS]
        if sum(len(one.programs) for one in near) < FEWEST_EXAMPLES:
            return
        rows = np.concatenate([_rows(one.schedules, one.hardware) for one in near])
        expected = np.concatenate([standardised(one.labels) for one in near])
        self._columns = np.flatnonzero(np.ptp(rows, axis=0))
        if len(self._columns) and np.ptp(expected):
            settings = [{**booster_settings(bag, threads=1), **SETTINGS} for bag in range(BAGS)]
            data = xgboost.QuantileDMatrix(rows[:, self._columns], expected, max_bin=settings[0]["max_bin"], nthread=1)
            self._boosters = [xgboost.train(each, data, ROUNDS) for each in settings]

    def expect(self, schedules: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) deviations above the mean of the workload's schedules; `schedules` (n, d) as `Group.schedules`."""
        if not self._boosters or not len(schedules):
            return np.zeros(len(schedules), dtype=np.float32)
        rows = _rows(schedules, self._hardware)[:, self._columns]
        found: NDArray[np.float32] = np.mean([each.inplace_predict(rows) for each in self._boosters], axis=0)
        return found


def _rows(schedules: NDArray[np.float32], hardware: HardwareToken) -> NDArray[np.float32]:
    """(n, columns)"""
    return np.concatenate([schedules, np.repeat(hardware[None], len(schedules), axis=0)], axis=1)
