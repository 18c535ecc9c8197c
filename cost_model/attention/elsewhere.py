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

from crosstune.cost_model.baselines.xgboost_ranker import FEWEST_EXAMPLES
from crosstune.cost_model.groups import Group, standardised
from crosstune.cost_model.tokens.hardware import HardwareToken, distance
from crosstune.cost_model.tokens.schedule import schedule_rows

TARGETS = 8
"""That are learnt from, the nearest; all count alike, since the hardware is told."""
BAGS = 2
ROUNDS = 60
SETTINGS = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_bin": 32,
    "max_depth": 4,
    "eta": 0.15,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
    "min_child_weight": 2.0,
    "base_score": 0.0,
    "nthread": 1,
    "verbosity": 0,
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
            data = xgboost.QuantileDMatrix(rows[:, self._columns], expected, max_bin=SETTINGS["max_bin"], nthread=1)
            self._boosters = [xgboost.train({**SETTINGS, "seed": bag}, data, ROUNDS) for bag in range(BAGS)]

    def expect(
        self, kinds: NDArray[np.int64], values: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """(n,) for padded schedules: deviations above the mean of the workload's schedules."""
        if not self._boosters or not len(kinds):
            return np.zeros(len(kinds), dtype=np.float32)
        rows = _rows(schedule_rows(kinds, values, mask), self._hardware)[:, self._columns]
        found: NDArray[np.float32] = np.mean([each.inplace_predict(rows) for each in self._boosters], axis=0)
        return found


def _rows(schedules: NDArray[np.float32], hardware: HardwareToken) -> NDArray[np.float32]:
    """(n, columns)"""
    return np.concatenate([schedules, np.repeat(hardware[None], len(schedules), axis=0)], axis=1)
