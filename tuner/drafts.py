"""Drafts: schedules as plain decisions, made and changed without TVM.

A space is a list of instructions with open decisions (a design space of the workload, or the instructions of a good
schedule from elsewhere). A draft fills the decisions in. Drawing, mutating or comparing drafts costs microseconds,
while replaying one costs milliseconds, so a search can look at thousands of them. TVM may still refuse a draft, or
change a decision that does not fit; what counts is the trace that comes back from replaying it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.tuner.contracts import TraceJson, sha256_json

Decision = tuple[int, ...] | int | None
"""Tile factors, an index, or None: TVM draws a place by itself when the draft is replayed."""

COMPUTE_LOCATIONS = (-2, -1, *range(10))
"""Root, inline, and loops from outside to inside: tried one by one in spaces small enough to be listed."""
CHANGE_SEVERAL = 0.3
"""Share of mutations that change a second decision too: single changes get stuck in two-tile valleys."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Split a loop of `extent` into `parts` factors, the innermost at most `max_innermost`."""

    extent: int
    parts: int
    max_innermost: int

    @property
    def options(self) -> float:
        return math.prod(math.comb(power + self.parts - 1, self.parts - 1) for _, power in prime_powers(self.extent))

    def all(self) -> Iterator[Decision]:
        return (factors for factors in factorizations(self.extent, self.parts) if self._fits(factors))

    def draw(self, random: Random) -> Decision:
        for _ in range(20):
            factors = [1] * self.parts
            for prime, power in prime_powers(self.extent):
                for _ in range(power):
                    factors[random.randrange(self.parts)] *= prime
            if self._fits(factors):
                return tuple(factors)
        return (self.extent, *[1] * (self.parts - 1))

    def change(self, decision: Decision, random: Random) -> Decision:
        """Move one prime factor, or everything it stands for, from one part to another."""
        if not isinstance(decision, tuple) or self.extent == 1:
            return self.draw(random)
        for _ in range(10):
            source, sink = random.sample(range(self.parts), 2)
            if decision[source] == 1:
                continue
            primes = [prime for prime, power in prime_powers(decision[source]) for _ in range(power)]
            moved = math.prod(random.sample(primes, random.randint(1, len(primes))))
            factors = list(decision)
            factors[source] //= moved
            factors[sink] *= moved
            if self._fits(factors):
                return tuple(factors)
        return self.draw(random)

    def fitted(self, decision: Decision) -> Decision:
        """The factors of a loop of another extent, each inner one brought to the nearest that divides this."""
        if not isinstance(decision, tuple) or len(decision) != self.parts:
            return None
        rest = self.extent
        factors: list[int] = []
        for wanted in reversed(decision[1:]):
            most = rest if factors else max(1, self.max_innermost)
            fitting = [one for one in divisors(rest) if one <= most]
            factors.append(min(fitting, key=lambda one: abs(math.log(one / wanted))))
            rest //= factors[-1]
        return (rest, *reversed(factors))

    def _fits(self, factors: Sequence[int]) -> bool:
        return factors[-1] <= max(1, self.max_innermost)

    def columns(self, decision: Decision) -> list[float]:
        return [math.log2(factor) for factor in decision] if isinstance(decision, tuple) else [math.nan] * self.parts


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `count` alternatives."""

    count: int

    @property
    def options(self) -> float:
        return self.count

    def all(self) -> Iterator[Decision]:
        return iter(range(self.count))

    def draw(self, random: Random) -> Decision:
        return random.randrange(self.count)

    def change(self, decision: Decision, random: Random) -> Decision:
        others = [index for index in range(self.count) if index != decision]
        return random.choice(others) if others else decision

    def fitted(self, decision: Decision) -> Decision:
        return decision if isinstance(decision, int) and decision < self.count else 0

    def columns(self, decision: Decision) -> list[float]:
        return [float(decision)] if isinstance(decision, int) else [math.nan]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block is computed; only TVM knows which loops are possible."""

    @property
    def options(self) -> float:
        return len(COMPUTE_LOCATIONS)

    def all(self) -> Iterator[Decision]:
        return iter(COMPUTE_LOCATIONS)

    def draw(self, random: Random) -> Decision:
        return None

    def change(self, decision: Decision, random: Random) -> Decision:
        return None

    def fitted(self, decision: Decision) -> Decision:
        return decision if isinstance(decision, int) else None

    def columns(self, decision: Decision) -> list[float]:
        return [float(decision)] if isinstance(decision, int) else [math.nan]


Slot = Tile | Choice | Place


@dataclass(frozen=True, slots=True)
class Draft:
    """A space (by its position) with a decision for each of its slots."""

    space: int
    decisions: tuple[Decision, ...]

    @property
    def settled(self) -> bool:
        """True when the trace is complete, so that its hash is known before replaying."""
        return None not in self.decisions


class Space:
    """A trace whose sampling instructions may be decided anew; other decisions stay as they are."""

    def __init__(self, trace: TraceJson) -> None:
        self.instructions: list[Any] = trace[0]
        self.key = instructions_key(trace)
        self._structure = structure(trace)
        self._fixed = {int(index): decision for index, decision in trace[1]}
        self.slots: dict[int, Slot] = {}
        """Instruction index -> what may be decided there."""
        for index, decision in self._fixed.items():
            slot = _slot(self.instructions[index], decision)
            if slot is not None and slot.options > 1:
                self.slots[index] = slot

    @property
    def size(self) -> float:
        """How many drafts there are, counting every place as possible."""
        return math.prod(slot.options for slot in self.slots.values())

    @property
    def width(self) -> int:
        """How many numbers `columns` gives."""
        return sum(len(slot.columns(None)) for slot in self.slots.values())

    def draw(self, random: Random) -> tuple[Decision, ...]:
        return tuple(slot.draw(random) for slot in self.slots.values())

    def change(self, decisions: tuple[Decision, ...], random: Random) -> tuple[Decision, ...]:
        changed = list(decisions)
        slots = list(self.slots.values())
        if not slots:
            return decisions
        for _ in range(2 if random.random() < CHANGE_SEVERAL else 1):
            position = random.randrange(len(slots))
            changed[position] = slots[position].change(changed[position], random)
        return tuple(changed)

    def mix(self, one: tuple[Decision, ...], other: tuple[Decision, ...], random: Random) -> tuple[Decision, ...]:
        """Each decision from one of two parents."""
        return tuple(random.choice(pair) for pair in zip(one, other, strict=True))

    def all(self) -> Iterator[tuple[Decision, ...]]:
        return itertools.product(*[list(slot.all()) for slot in self.slots.values()])

    def trace(self, decisions: tuple[Decision, ...]) -> TraceJson:
        """The trace; an undecided place has no entry, so that TVM draws it."""
        chosen: dict[int, Any] = {**self._fixed, **dict(zip(self.slots, decisions, strict=True))}
        listed = [[index, _listed(decision)] for index, decision in sorted(chosen.items()) if decision is not None]
        return [self.instructions, listed]

    def decisions_of(self, trace: TraceJson) -> tuple[Decision, ...]:
        """The slots' decisions in a trace with these instructions."""
        made = {int(index): decision for index, decision in trace[1]}
        return tuple(_frozen(made.get(index)) for index in self.slots)

    def fitted(self, trace: TraceJson) -> tuple[Decision, ...] | None:
        """The decisions of another workload's schedule brought to this space; None where it is made differently."""
        if structure(trace) != self._structure:
            return None
        made = {int(index): decision for index, decision in trace[1]}
        return tuple(slot.fitted(_frozen(made.get(index))) for index, slot in self.slots.items())

    def columns(self, decisions: tuple[Decision, ...]) -> list[float]:
        """Decisions as numbers for a model: tile factors as log2."""
        slots = zip(self.slots.values(), decisions, strict=True)
        return [number for slot, decision in slots for number in slot.columns(decision)]


def vectors(spaces: Sequence[Space], drafts: Sequence[Draft], width: int) -> list[NDArray[np.float32]]:
    """One row a draft: space, then its decisions, padded with NaN to `width`, or cut."""
    rows = []
    for draft in drafts:
        row = np.full(width, np.nan, dtype=np.float32)
        numbers = [float(draft.space), *spaces[draft.space].columns(draft.decisions)][:width]
        row[: len(numbers)] = numbers
        rows.append(row)
    return rows


def instructions_key(trace: TraceJson) -> str:
    """Equal for traces that differ in decisions only."""
    return sha256_json(trace[0])


def structure(trace: TraceJson) -> tuple[Any, ...]:
    """Equal for schedules that are made alike, of whatever sizes: the same primitives on the same blocks in the same
    order, with as many tiles."""
    telling = {"GetSBlock": slice(None), "SamplePerfectTile": slice(0, 1)}
    return tuple((name, *map(str, attributes[telling.get(name, slice(0, 0))])) for name, _, attributes, _ in trace[0])


def _slot(instruction: Any, decision: Any) -> Slot | None:
    name, _, attributes, _ = instruction
    if name == "SamplePerfectTile":
        return Tile(math.prod(decision), len(decision), int(attributes[1]))
    if name == "SampleCategorical":
        return Choice(len(attributes[0]))
    return Place() if name == "SampleComputeLocation" else None


def _listed(decision: Any) -> Any:
    return list(decision) if isinstance(decision, tuple) else decision


def _frozen(decision: Any) -> Decision:
    return tuple(decision) if isinstance(decision, list) else decision


@lru_cache(maxsize=1024)
def prime_powers(number: int) -> tuple[tuple[int, int], ...]:
    """((prime, power), ...) of `number` >= 1."""
    found = []
    for prime in itertools.chain((2,), range(3, math.isqrt(number) + 1, 2)):
        power = 0
        while number % prime == 0:
            number //= prime
            power += 1
        if power:
            found.append((prime, power))
    if number > 1:
        found.append((number, 1))
    return tuple(found)


def divisors(number: int) -> list[int]:
    powers = [[prime**power for power in range(most + 1)] for prime, most in prime_powers(number)]
    return sorted(math.prod(chosen) for chosen in itertools.product(*powers))


def factorizations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `number` as an ordered product of `parts` factors."""
    if parts == 1:
        yield (number,)
        return
    for factor in divisors(number):
        for rest in factorizations(number // factor, parts - 1):
            yield (factor, *rest)
