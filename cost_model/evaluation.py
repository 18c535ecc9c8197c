"""How well scores rank the programs of groups: TenSet's metrics and tie-free ones, beside random and the noise ceiling.

A group's score counts once, whatever its size. Every mean comes with the pool size and what random would reach;
differences between models are paired over the same groups, with a bootstrap over workloads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crosstune.cost_model.groups import Group
from crosstune.cost_model.metrics import pairwise_accuracy, pairwise_accuracy_without_ties, random_top_k, skill, top_k
from crosstune.cost_model.ranker import Scores

RESAMPLES = 2000
METRICS = ("pairwise", "pairwise_tenset", "top1", "top5")


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Metrics of one method on one group."""

    workload: str
    target: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the middle 95 % of its bootstrap over workloads."""

    mean: float
    low: float
    high: float


def group_score(group: Group, scores: Scores) -> GroupScore:
    """`scores` (programs,), higher = faster."""
    return GroupScore(group.workload, group.target, _metrics(scores, group.labels))


def _metrics(scores: Scores, labels: Scores) -> dict[str, float]:
    without_ties = pairwise_accuracy_without_ties(scores, labels)
    return {
        "pairwise": 0.5 if without_ties is None else without_ties,
        "pairwise_tenset": pairwise_accuracy(scores, labels),
        "top1": top_k(scores, labels, 1),
        "top5": top_k(scores, labels, 5),
    }


def random_score(group: Group) -> GroupScore:
    """What blind choice reaches on average."""
    labels = group.labels
    values = {"pairwise": 0.5, "pairwise_tenset": 0.5}
    values |= {"top1": random_top_k(labels, 1), "top5": random_top_k(labels, 5)}
    return GroupScore(group.workload, group.target, values)


def ceiling_score(group: Group) -> GroupScore | None:
    """The second measurement as the predictor of the first, among the programs that have both; None below two."""
    both = [(p.latency_s, group.repeated_s[p.identity]) for p in group.programs if p.identity in group.repeated_s]
    pairs = [(first, second) for first, second in both if first is not None]
    if len(pairs) < 2:
        return None
    first = np.array([one for one, _ in pairs])
    second = np.array([two for _, two in pairs])
    return GroupScore(group.workload, group.target, _metrics(second.min() / second, first.min() / first))


def noise_ceiling(groups: Sequence[Group]) -> dict[str, float]:
    """Mean of each metric over the groups with repeats; empty when there is none."""
    found = [one for one in map(ceiling_score, groups) if one is not None]
    return {metric: float(np.mean([one.values[metric] for one in found])) for metric in METRICS} if found else {}


def interval(scores: Sequence[GroupScore], metric: str, seed: int = 0) -> Interval:
    """Mean over groups, with its 95 % interval: workloads are drawn anew, since their groups go together."""
    return _bootstrap({(one.workload, one.target): one.values[metric] for one in scores}, seed)


def difference(one: Sequence[GroupScore], other: Sequence[GroupScore], metric: str, seed: int = 0) -> Interval:
    """Paired: `one` minus `other` on the groups that both have."""
    second = {(each.workload, each.target): each.values[metric] for each in other}
    pairs = {
        (each.workload, each.target): each.values[metric] - second[each.workload, each.target]
        for each in one
        if (each.workload, each.target) in second
    }
    return _bootstrap(pairs, seed)


def _bootstrap(values: Mapping[tuple[str, str], float], seed: int) -> Interval:
    if not values:
        return Interval(float("nan"), float("nan"), float("nan"))
    by_workload: dict[str, list[float]] = {}
    for (workload, _), value in values.items():
        by_workload.setdefault(workload, []).append(value)
    sums = np.array([sum(each) for each in by_workload.values()])
    counts = np.array([len(each) for each in by_workload.values()])
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Summary:
    """One method on a set of groups."""

    method: str
    groups: int
    median_pool: float
    """Programs in the middle group."""
    metrics: dict[str, Interval]
    skill_top1: float | None


def summarise(
    method: str, scores: Sequence[GroupScore], groups: Sequence[Group], ceiling_top1: float = 1.0, seed: int = 0
) -> Summary:
    """`ceiling_top1`: what the repeat reaches; 1 where nothing was repeated."""
    metrics = {metric: interval(scores, metric, seed) for metric in METRICS}
    chance = float(np.mean([random_score(group).values["top1"] for group in groups])) if groups else float("nan")
    sizes = [len(group.programs) for group in groups]
    pool = float(np.median(sizes)) if sizes else float("nan")
    return Summary(method, len(scores), pool, metrics, skill(metrics["top1"].mean, chance, ceiling_top1))
