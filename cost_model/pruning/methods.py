"""Ways to choose which programs are kept. Each is told the share to keep, and keeps at least one program of a task.

All see the labels of what they are given, which must be training data: never prune what a model is tested on.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
from scipy.cluster.vq import kmeans2

from crosstune.cost_model.pruning.samples import Indices, Samples, standardised


class Method(Protocol):
    """`share`: how much to keep, in (0, 1]. The same `chance` gives the same choice."""

    name: ClassVar[str]
    needs_features: ClassVar[bool]

    @property
    def share(self) -> float: ...

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        """Indices of the programs to keep, ascending."""


@dataclass(frozen=True, slots=True)
class RandomShare:
    """The same share of all programs, drawn blindly: what every other method must beat."""

    name: ClassVar[str] = "random"
    needs_features: ClassVar[bool] = False
    share: float

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        return _sorted(chance.choice(len(samples), _count(len(samples), self.share), replace=False))


@dataclass(frozen=True, slots=True)
class TaskDiverse:
    """All tasks, few programs of each: large tasks are cut to one size, small ones stay whole.

    TenSet found 600 tasks with 200 programs better than 300 with 400 (see its paper's figures on data set size).
    """

    name: ClassVar[str] = "task-diverse"
    needs_features: ClassVar[bool] = False
    share: float

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        groups = list(samples.by_task())
        size = _common_size([len(group) for group in groups], _count(len(samples), self.share))
        return _sorted(np.concatenate([chance.choice(group, min(len(group), size), replace=False) for group in groups]))


@dataclass(frozen=True, slots=True)
class LabelStratified:
    """Of each task the same share of fast, middling and slow programs, and always its fastest."""

    name: ClassVar[str] = "label-stratified"
    needs_features: ClassVar[bool] = False
    share: float
    strata: int = 10

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        return _per_task(samples, lambda group: self._of_task(group, samples, chance))

    def _of_task(self, group: Indices, samples: Samples, chance: np.random.Generator) -> Indices:
        ordered = group[np.argsort(-samples.labels[group], kind="stable")]
        wanted = _count(len(group), self.share)
        # The middle of each stretch of equal length, moved within it at random: a stratified sample of the order.
        edges = np.linspace(0, len(ordered), wanted + 1)
        places = (edges[:-1] + chance.random(wanted) * np.diff(edges)).astype(np.int64)
        places[0] = 0
        return ordered[np.unique(places)]


@dataclass(frozen=True, slots=True)
class StratifiedDistinct:
    """As label-stratified, but of each stretch a program that is not kept for another task yet, where there is one.

    Collections measure the same programs on several targets; what one more target says of a program teaches less than
    another program does.
    """

    name: ClassVar[str] = "stratified-distinct"
    needs_features: ClassVar[bool] = True
    share: float

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        kept: Counter[bytes] = Counter()
        return _per_task(samples, lambda group: self._of_task(group, samples, kept, chance))

    def _of_task(self, group: Indices, samples: Samples, kept: Counter[bytes], chance: np.random.Generator) -> Indices:
        ordered = group[np.argsort(-samples.labels[group], kind="stable")]
        programs = [samples.features[index].tobytes() for index in ordered]
        edges = np.linspace(0, len(ordered), _count(len(group), self.share) + 1).round().astype(np.int64)
        chosen = [0]  # the fastest is what a model must know
        for first, last in pairwise(edges[1:]):
            places = chance.permutation(np.arange(first, last))
            chosen.append(min(places, key=lambda place: kept[programs[place]]))
        kept.update(programs[place] for place in chosen)
        return ordered[_sorted(np.array(chosen))]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Of each task the programs that differ most: from its fastest on, always the one farthest from those chosen."""

    name: ClassVar[str] = "near-duplicates"
    needs_features: ClassVar[bool] = True
    share: float

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        return _per_task(samples, lambda group: self._of_task(group, samples))

    def _of_task(self, group: Indices, samples: Samples) -> Indices:
        points = standardised(samples.features[group])
        chosen = [int(np.argmax(samples.labels[group]))]
        distance = _square_distance(points, points[chosen[0]])
        for _ in range(_count(len(group), self.share) - 1):
            farthest = int(np.argmax(distance))
            chosen.append(farthest)
            distance = np.minimum(distance, _square_distance(points, points[farthest]))
            distance[chosen] = -1.0
        return group[chosen]


@dataclass(frozen=True, slots=True)
class RepresentativeDiverseUncertain:
    """Of each task programs from all its clusters, near their middle, and those that small models disagree about.

    The three terms of TCL's sampler (arXiv 2604.12891): k-means clusters give diversity, nearness to a cluster's middle
    stands for being representative, and the spread of ridge regressions on bootstraps for uncertainty.
    """

    name: ClassVar[str] = "representative-diverse-uncertain"
    needs_features: ClassVar[bool] = True
    share: float
    per_cluster: int = 4
    """Programs kept of a cluster of average size."""
    models: int = 8
    uncertainty: float = 0.5
    """Its weight against nearness, 0 to 1."""

    def keep(self, samples: Samples, chance: np.random.Generator) -> Indices:
        return _per_task(samples, lambda group: self._of_task(group, samples, chance))

    def _of_task(self, group: Indices, samples: Samples, chance: np.random.Generator) -> Indices:
        wanted = _count(len(group), self.share)
        points = standardised(samples.features[group])
        labels = samples.labels[group]
        best = int(np.argmax(labels))
        if wanted >= len(group) or not points.shape[1]:
            return group[_sorted(np.append(chance.choice(len(group), wanted - 1, replace=False), best))]
        clusters = max(1, wanted // self.per_cluster)
        centres, member_of = _clusters(points, clusters, chance)
        nearness = -np.sum(np.square(points - centres[member_of]), axis=1)
        doubt = _disagreement(points, labels, self.models, chance)
        score = (1.0 - self.uncertainty) * _ranks(nearness) + self.uncertainty * _ranks(doubt)
        score[best] = 2.0  # the fastest is what a model must know
        chosen: Indices = group[_best_of_each(member_of, score, wanted)]
        return chosen


METHODS: dict[str, Callable[[float], Method]] = {
    RandomShare.name: RandomShare,
    TaskDiverse.name: TaskDiverse,
    LabelStratified.name: LabelStratified,
    StratifiedDistinct.name: StratifiedDistinct,
    NearDuplicates.name: NearDuplicates,
    RepresentativeDiverseUncertain.name: RepresentativeDiverseUncertain,
}


def _count(size: int, share: float) -> int:
    return min(size, max(1, round(size * share)))


def _sorted(indices: Indices) -> Indices:
    return np.unique(indices)


def _per_task(samples: Samples, choose: Callable[[Indices], Indices]) -> Indices:
    chosen = [choose(group) for group in samples.by_task()]
    return _sorted(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _clusters(points: np.ndarray, count: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres and the cluster of each point; a cluster may end up empty, which does no harm here."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        centres, member_of = kmeans2(points, count, minit="points", rng=chance, missing="warn")
    return centres, member_of


def _common_size(sizes: list[int], wanted: int) -> int:
    """The largest size that all groups can be cut to so that at most `wanted` are left, and at least one of each."""
    size = 1
    while sum(min(each, size + 1) for each in sizes) <= wanted and size < max(sizes):
        size += 1
    return size


def _square_distance(points: np.ndarray, one: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sum(np.square(points - one), axis=1)
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """0 for the lowest, 1 for the highest."""
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = np.linspace(0.0, 1.0, len(values))
    return places


def _disagreement(points: np.ndarray, labels: np.ndarray, models: int, chance: np.random.Generator) -> np.ndarray:
    """Deviation over ridge regressions, each fitted on a bootstrap of the programs."""
    answers = []
    for _ in range(models):
        drawn = chance.integers(0, len(points), len(points))
        design = points[drawn].T @ points[drawn] + len(points) * 0.1 * np.eye(points.shape[1], dtype=np.float32)
        answers.append(points @ np.linalg.solve(design, points[drawn].T @ (labels[drawn] - labels.mean())))
    spread: np.ndarray = np.std(answers, axis=0)
    return spread


def _best_of_each(member_of: np.ndarray, score: np.ndarray, wanted: int) -> np.ndarray:
    """`wanted` indices: the best of every cluster, then the second best of every cluster, and so on."""
    order = np.argsort(-score, kind="stable")
    places = np.empty(len(score), dtype=np.int64)
    seen: dict[int, int] = {}
    for index in order:
        cluster = int(member_of[index])
        places[index] = seen.get(cluster, 0)
        seen[cluster] = places[index] + 1
    chosen: np.ndarray = np.lexsort((-score, places))[:wanted]
    return chosen
