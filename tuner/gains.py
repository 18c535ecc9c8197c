"""How a task's best latency falls with the trials that are spent on it: as a power of their number.

In committed runs of guided search (benchmarks/results/guided_search.json) each doubling of the trials, from 8 to 64,
took about the same share off the best latency, while what one doubling had brought said little of the next. So every
task starts from one exponent; the tasks of a job move it together, and each task its own a little (shrinkage towards
the mean, as in Efron and Morris, "Stein's estimation rule and its competitors", 1973).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EXPONENT = 0.07
"""Latency ~ trials ** -EXPONENT: 5 % less for twice the trials. tests/tuner/test_gains.py computes it from the runs."""
JOB_WEIGHT, TASK_WEIGHT = 40 * math.log(2), 8 * math.log(2)
"""What the expectation weighs beside what was observed, in logarithms of trials: so many doublings. With 10 and
4 a job of SqueezeNet stopped when ten more minutes were to bring 3 %, and they brought 7: one task found a better tile
after 600 trials without any. Weighed so the same rounds foretell nearly 4 % at that point, and the job goes on."""
RECENT = 4
"""A task's own gains count from a quarter of its trials on: what its first round found says nothing of its last."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best latency of a workload on a target after `trials` candidates, whoever measured them."""

    trials: int
    latency_s: float


def exponents(curves: Sequence[Sequence[Best]]) -> list[float]:
    """How fast each task of a job gains: latency ~ trials ** -exponent from here on; `curves` in order of trials."""
    seen = [observed(curve) for curve in curves]
    gained, span = sum(gain for gain, _ in seen), sum(span for _, span in seen)
    together = (JOB_WEIGHT * EXPONENT + gained) / (JOB_WEIGHT + span)
    return [(TASK_WEIGHT * together + gain) / (TASK_WEIGHT + span) for gain, span in seen]


def observed(curve: Sequence[Best]) -> tuple[float, float]:
    """(logarithm of what the latency fell by, logarithm of what the trials grew by) over a task's recent trials."""
    recent = [best for best in curve if best.trials > 0 and best.trials * RECENT >= curve[-1].trials]
    if len(recent) < 2:
        return 0.0, 0.0
    first, last = recent[0], recent[-1]
    return max(0.0, math.log(first.latency_s / last.latency_s)), math.log(last.trials / first.trials)


def after(best: Best, more_trials: int, exponent: float, floor_s: float = 0.0) -> Best:
    """What is to be expected after `more_trials`; never below `floor_s`, the hardware's limit."""
    start = max(1, best.trials)
    expected_s = best.latency_s * ((start + more_trials) / start) ** -exponent
    return Best(start + more_trials, min(best.latency_s, max(floor_s, expected_s)))
