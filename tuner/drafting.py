"""Which drafts to look at next: bred on a model over decisions, children of the best records, and random ones.

What was measured of the workload on other targets teaches the model and gives parents as if it were of this one.
Schedules of like workloads come as they are, brought to this one's sizes. They are no parents: bred on them, the first
convolution of SqueezeNet, which is like no other of its network, was not tuned at all in 64 trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.baselines.draft_ranker import DraftRanker
from crosstune.tuner.contracts import Invalidity, KnownSchedule, MeasuredElsewhere, TraceJson, sha256_json
from crosstune.tuner.drafts import Draft, Space, instructions_key, vectors

LISTED_SIZE = 256
"""Spaces with at most this many drafts in all are gone through one by one."""
RANDOM_SHARE, CHILDREN_SHARE = 0.15, 0.15
"""Drafts that ignore the model although it is informed: drawn at random, and children of the best records."""
POPULATION, CHILDREN, GENERATIONS = 128, 384, 3
PARENTS = 32
MATING = 0.25
BORROWED_SPACES = 8
VECTOR_WIDTH = 128


Measured = tuple[Draft, float]
"""And its speed as a share of the fastest one's of the same target."""


class Drafter:
    """Drafts of one workload for one round, from what is known of it. `tried` drafts do not come again."""

    def __init__(
        self,
        spaces: Sequence[Space],
        known: Sequence[KnownSchedule],
        tried: set[Draft],
        random: Random,
        elsewhere: Sequence[MeasuredElsewhere] = (),
    ) -> None:
        self.spaces = [*spaces, *borrowed_spaces(spaces, known)]
        self._tried, self._random = tried, random
        self._by_key = {space.key: index for index, space in enumerate(self.spaces)}
        measured = [self._measured(known), *map(self._measured_elsewhere, elsewhere)]
        self._parents = fastest(measured)[:PARENTS]
        self._width = min(VECTOR_WIDTH, 1 + max((space.width for space in self.spaces), default=0))
        self._model = DraftRanker(random.randrange(2**30))
        drafts = [draft for group in measured for draft, _ in group]
        self._model.fit(self._vectors(drafts), [speed for group in measured for _, speed in group])
        self._bred: list[Draft] | None = None

    def learn(self, traces: Sequence[TraceJson], scores: Sequence[float]) -> None:
        """Breed on `scores` (higher = better) from now on, not on what was measured."""
        drafts = [self._draft_of(trace) for trace in traces]
        told = [(draft, score) for draft, score in zip(drafts, scores, strict=True) if draft is not None]
        self._model.fit(self._vectors([draft for draft, _ in told]), [score for _, score in told])
        self._bred = None

    def neighbours(self, near: Sequence[TraceJson], unwanted: set[str]) -> list[Draft]:
        """Schedules of like workloads, each brought to this one's spaces."""
        drafts = [draft for trace in near for draft in self._fitted(trace)]
        return self._new_ones(drafts, len(drafts), unwanted)

    def more(self, count: int, unwanted: set[str]) -> list[Draft]:
        """At most `count` drafts whose schedules are not among the hashes in `unwanted`; none when the space is dry."""
        if sum(space.size for space in self.spaces) <= LISTED_SIZE:
            listed = [Draft(index, made) for index, space in enumerate(self.spaces) for made in space.all()]
            self._random.shuffle(listed)
            found = self._new_ones(listed, count, unwanted)
        else:
            children, drawn = self._shares(count)
            found = self._new_ones(self._breed(), count - children - drawn, unwanted)
            found += self._new_ones([self._child(self._parents) for _ in range(4 * children)], children, unwanted)
            missing = count - len(found)
            found += self._new_ones([self._drawn() for _ in range(4 * missing)], missing, unwanted)
        return found

    def _shares(self, count: int) -> tuple[int, int]:
        """(children of records, random drafts); the rest is bred on the model."""
        if not self._model.informed:
            children = count // 2 if self._parents else 0
            return children, count - children
        return math.ceil(count * CHILDREN_SHARE) if self._parents else 0, math.ceil(count * RANDOM_SHARE)

    def _new_ones(self, drafts: Sequence[Draft], count: int, unwanted: set[str]) -> list[Draft]:
        new: list[Draft] = []
        given: set[Draft] = set()
        for draft in drafts:
            if len(new) >= count:
                break
            if draft in self._tried or draft in given:
                continue
            given.add(draft)
            if draft.settled:  # an open one may become another schedule each time
                self._tried.add(draft)
                if sha256_json(self.spaces[draft.space].trace(draft.decisions)) in unwanted:
                    continue
            new.append(draft)
        return new

    def _drawn(self) -> Draft:
        index = self._random.randrange(len(self.spaces))
        return Draft(index, self.spaces[index].draw(self._random))

    def _child(self, parents: Sequence[Draft]) -> Draft:
        """A mutated, at times crossed, draft; the front of `parents` is preferred."""
        parent = parents[min(int(self._random.expovariate(4 / len(parents))), len(parents) - 1)]
        space, decisions = self.spaces[parent.space], parent.decisions
        if self._random.random() < MATING:
            mate = self._random.choice(parents[:PARENTS])
            if mate.space == parent.space:
                decisions = space.mix(decisions, mate.decisions, self._random)
        if decisions == parent.decisions or self._random.random() < 0.5:
            decisions = space.change(decisions, self._random)
        return Draft(parent.space, decisions)

    def _breed(self) -> list[Draft]:
        """An evolution on the model alone, once a round; the best drafts first, none while the model is uninformed."""
        if self._bred is None:
            self._bred = []
            if self._model.informed:
                drawn = [self._drawn() for _ in range(POPULATION)]
                population = self._best([*self._parents, *drawn])
                for _ in range(GENERATIONS):
                    population = self._best([*population, *[self._child(population) for _ in range(CHILDREN)]])
                self._bred = population
        return self._bred

    def _best(self, drafts: Sequence[Draft]) -> list[Draft]:
        unique = list(dict.fromkeys(drafts))
        scores = self._model.score(self._vectors(unique))
        order = sorted(range(len(unique)), key=lambda position: -scores[position])
        return [unique[position] for position in order[:POPULATION]]

    def _draft_of(self, trace: TraceJson) -> Draft | None:
        index = self._by_key.get(instructions_key(trace))
        if index is None or not self.spaces[index].slots:
            return None
        return Draft(index, self.spaces[index].decisions_of(trace))

    def _vectors(self, drafts: Sequence[Draft]) -> list[NDArray[np.float32]]:
        return vectors(self.spaces, drafts, self._width)

    def _fitted(self, trace: TraceJson) -> list[Draft]:
        """A schedule of another workload or target as drafts of the spaces that are made like it."""
        fitted = [(index, space.fitted(trace)) for index, space in enumerate(self.spaces)]
        return [Draft(index, made) for index, made in fitted if made is not None]

    def _measured(self, known: Sequence[KnownSchedule]) -> list[Measured]:
        """The best first; failures last."""
        judged = [(self._draft_of(each.trace), each.order_s) for each in known if has_verdict(each)]
        return by_speed([(draft, latency_s) for draft, latency_s in judged if draft is not None])

    def _measured_elsewhere(self, there: MeasuredElsewhere) -> list[Measured]:
        pairs = zip(there.traces, there.latencies_s, strict=True)
        return by_speed([(draft, latency_s) for trace, latency_s in pairs for draft in self._fitted(trace)])


def by_speed(judged: Sequence[tuple[Draft, float | None]]) -> list[Measured]:
    """The fastest first, as the share of its speed that each has; failures last, with none."""
    fastest_s = min((latency_s for _, latency_s in judged if latency_s is not None), default=0.0)
    speeds = [(draft, 0.0 if latency_s is None else fastest_s / latency_s) for draft, latency_s in judged]
    return sorted(speeds, key=lambda one: -one[1])


def fastest(groups: Sequence[Sequence[Measured]]) -> list[Draft]:
    """Those that ran, each once, the best of the first group first."""
    return list(dict.fromkeys(draft for group in groups for draft, speed in group if speed > 0.0))


def by_latency(known: Sequence[KnownSchedule]) -> list[KnownSchedule]:
    """The measured ones, the fastest first."""
    return sorted((each for each in known if each.order_s is not None), key=lambda each: each.order_s or 0.0)


def is_seed(known: KnownSchedule) -> bool:
    """Never tried here: it comes from another target or a near workload."""
    return known.latency_s is None and known.invalidity is None


def has_verdict(known: KnownSchedule) -> bool:
    """Measured, or failed in a way that says something of the schedule: what takes too long now would do so again."""
    telling = known.invalidity is not None and (known.invalidity.permanent or known.invalidity is Invalidity.TIMEOUT)
    return known.latency_s is not None or telling


def unwanted_hashes(known: Sequence[KnownSchedule]) -> set[str]:
    """Hashes of schedules and programs that must not be proposed: all that were tried, whatever came of it.

    A lost device says nothing about the schedule, so such ones may come up again.
    """
    tried = [each for each in known if not is_seed(each) and each.invalidity is not Invalidity.DEVICE_LOST]
    return {found for each in tried for found in (each.schedule_sha256, each.module_sha256) if found is not None}


def borrowed_spaces(own: Sequence[Space], known: Sequence[KnownSchedule]) -> list[Space]:
    """Fast schedules made of other instructions than our design spaces (from elsewhere) open spaces of their own."""
    keys = {space.key for space in own}
    found: list[Space] = []
    for each in by_latency(known)[: 4 * BORROWED_SPACES]:
        key = instructions_key(each.trace)
        if key in keys or len(found) == BORROWED_SPACES:
            continue
        keys.add(key)
        space = Space(each.trace)
        if space.slots:
            found.append(space)
    return found
