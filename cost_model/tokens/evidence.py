"""What is known of a workload elsewhere, as tokens beside each of its programs.

For a program on one target, each other target on which the workload was measured gives one token: the difference of
the hardware, and how the most similar schedule did there, with how similar it is. The same program on the nearest
target is then the special case that copying takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.groups import Group
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH, distance
from crosstune.cost_model.tokens.schedule import STEP_COLUMNS

EVIDENCE = 4
"""Targets that are looked at, the nearest first."""
FACTS = 3
"""Beside the hardware's difference: relative speed there, unlikeness of the schedule, unlikeness of the hardware."""
EVIDENCE_WIDTH = HARDWARE_WIDTH + FACTS
SPEED, SCHEDULE_DISTANCE, HARDWARE_DISTANCE = HARDWARE_WIDTH, HARDWARE_WIDTH + 1, HARDWARE_WIDTH + 2
Tokens = NDArray[np.float32]
"""(programs, EVIDENCE, EVIDENCE_WIDTH)"""
Mask = NDArray[np.bool_]
"""(programs, EVIDENCE): there is something."""


def evidence(group: Group, others: Sequence[Group]) -> tuple[Tokens, Mask]:
    """Tokens for each program of `group` from `others`: groups of the same workload on other targets."""
    count = len(group.programs)
    found = np.zeros((count, EVIDENCE, EVIDENCE_WIDTH), dtype=np.float32)
    mask = np.zeros((count, EVIDENCE), dtype=bool)
    nearest = sorted(others, key=lambda other: distance(group.hardware, other.hardware))[:EVIDENCE]
    for position, other in enumerate(nearest):
        if not other.programs or not count:
            continue
        place, unlike = _most_similar(group.schedules[:, :STEP_COLUMNS], other.schedules[:, :STEP_COLUMNS])
        found[:, position, :HARDWARE_WIDTH] = other.hardware - group.hardware
        found[:, position, SPEED] = other.labels[place]
        found[:, position, SCHEDULE_DISTANCE] = unlike
        found[:, position, HARDWARE_DISTANCE] = distance(group.hardware, other.hardware)
        mask[:, position] = True
    return found, mask


def _most_similar(
    own: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row of `own` the nearest of `others`, and log2(1 + how far it is) (sum of differences)."""
    places, far = [], []
    for row in own:
        distances = np.abs(others - row).sum(axis=1)
        places.append(int(np.argmin(distances)))
        far.append(float(np.log2(1.0 + distances[places[-1]])))
    return np.array(places), np.array(far)
