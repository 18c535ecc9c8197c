"""May a version replace another? Judged on the same programs: better in the mean, and on no target worse than noise.

A difference is paired over (workload, target), its 95 % interval bootstrapped over workloads (cost_model.evaluation). A
target on which the interval lies wholly below zero is a reason against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crosstune.cost_model.evaluation import GroupScore, Interval, difference

METRIC = "top1"
LEAST_GROUPS = 3
"""Fewer say nothing, on a target or in all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One version beside another; differences are the first's minus the second's."""

    groups: int
    overall: dict[str, Interval]
    """By metric."""
    by_target: dict[str, Interval]
    """In METRIC, of targets with LEAST_GROUPS workloads."""
    reasons: tuple[str, ...]
    """Why the first may not replace the second; none when it may."""


def compare(one: Sequence[GroupScore], other: Sequence[GroupScore], metrics: Sequence[str]) -> Comparison:
    overall = {metric: difference(one, other, metric) for metric in metrics}
    by_target: dict[str, Interval] = {}
    for target in sorted({each.target for each in one}):
        own = [each for each in one if each.target == target]
        if len(own) >= LEAST_GROUPS:
            by_target[target] = difference(own, other, METRIC)
    return Comparison(len(one), overall, by_target, tuple(_reasons(len(one), overall[METRIC], by_target)))


def _reasons(groups: int, overall: Interval, by_target: dict[str, Interval]) -> list[str]:
    if groups < LEAST_GROUPS:
        return [f"only {groups} workloads could be judged on their targets; {LEAST_GROUPS} are needed"]
    found = []
    if not overall.mean > 0.0:
        found.append(f"{METRIC} is no better in the mean ({overall.mean:+.4f} over {groups} workloads and targets)")
    worse = [(target, one) for target, one in by_target.items() if one.high < 0.0]
    found += [f"{METRIC} is worse on {target} ({one.low:+.4f} to {one.high:+.4f})" for target, one in worse]
    return found
