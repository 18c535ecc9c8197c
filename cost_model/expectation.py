"""What a workload is expected to take on a target once it is tuned there, with an interval, from what is known.

The logarithm of a best latency over the roofline (Williams et al., 2009) is taken as a Gaussian process over workload
and hardware (Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapter 2), told from the nearest
known ones (kriging): like workloads are alike on all hardware, a target has something of its own for all workloads and
for like ones, and what is left of one workload goes with it to other targets. So a latency that is known elsewhere
moves by what both targets showed on the workloads that they share, similar ones counting more, and an unknown workload
is told from its neighbours, by one and the same rule.

Intervals are conformal: known latencies are foretold as if what goes with them were not known, and the quantiles of
these errors over their deviations hold for new ones (Papadopoulos et al., "Normalized nonconformity measures for
regression conformal prediction", 2008; leaving out in place of splitting: Barber et al., "Predictive inference with the
jackknife+", 2021; leaving out whole groups: Dunn et al., "Distribution-free prediction sets for two-layer hierarchical
models", 2022). What is left out is what the question lacks: the target, or all of its silicon, where these are not
known; and, where the workload is not known, it and all that are more like it than the likest known one is like the
workload in question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.tokens.hardware import UNITS, HardwareToken, attribute

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

COVERAGE = 0.8
"""Share of later measurements that intervals are to hold."""
LEAST_EXAMPLES = 20
"""With fewer left-out errors nothing is said: the outer ones of nine or fewer would be no 80 %."""
MOST_EXAMPLES = 400
"""Left-out errors that an interval is made of: tells quantiles to within some percent of coverage."""
NEIGHBOURS = 96
"""Known latencies that one is told from, those that go with it most; twice as many changed errors little."""
DRAWS = 999
"""Samples of each expected latency, for sums."""
LEVELS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Of likeness, to which that of a question is brought down, so that few kinds of questions are told apart."""

CALL_S = 3e-8
"""Calling a kernel that does nothing: what the shortest ones that were measured take."""

# Shares of the variance, and over which distances it goes with workloads and hardware (in doublings of a size, in units
# of hardware tokens). Chosen by the error of left-out latencies in the shipped table; intervals do not rest on them.
COMMON, LIKE_WORKLOADS, LIKE_BOTH = 1.0, 1.0, 0.2
SAME_WORKLOAD, SAME_WORKLOAD_LIKE_HARDWARE = 0.1, 0.05
SAME_TARGET, LIKE_WORKLOADS_SAME_TARGET = 0.1, 0.2
TOTAL = (
    COMMON
    + LIKE_WORKLOADS
    + LIKE_BOTH
    + SAME_WORKLOAD
    + SAME_WORKLOAD_LIKE_HARDWARE
    + SAME_TARGET
    + LIKE_WORKLOADS_SAME_TARGET
)
NOISE = 0.05
SIZE_RANGE, HARDWARE_RANGE = 4.0, 1.6


@dataclass(frozen=True, slots=True)
class Computation:
    """What of a workload tells its latency. `key`: the same for the same computation; `name`: its operators, joined
    by `_`; `arguments`: (dtype, sizes), the output last."""

    key: str
    name: str
    flops: float
    arguments: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A target by its identity, the processor's model that it is (or its identity again), its hardware token."""

    identity: str
    silicon: str
    hardware: tuple[float, ...]

    @classmethod
    def of(cls, identity: str, silicon: str, hardware: HardwareToken) -> Place:
        return cls(identity, silicon or identity, tuple(hardware.tolist()))

    @property
    def token(self) -> HardwareToken:
        return np.array(self.hardware, dtype=np.float32)

    @property
    def told(self) -> bool:
        """Whether its rates are known, without which there is no roofline."""
        return None not in (attribute(self.token, "peak_flops_per_s"), attribute(self.token, "memory_bytes_per_s"))


@dataclass(frozen=True, slots=True)
class Best:
    """The best latency that was found of a computation on a target, in seconds."""

    computation: Computation
    place: Place
    latency_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The median and the ends of the 80 % interval, in seconds; `draws` (DRAWS,) go with those of the same answer."""

    latency_s: float
    low_s: float
    high_s: float
    draws: Floats


class Unknown(Enum):
    """How much of a target is not known."""

    NOTHING = "nothing"
    TARGET = "target"
    SILICON = "silicon"


@dataclass(frozen=True, slots=True)
class Question:
    """What is lacking where something is asked."""

    likeness: float | None
    """Of the likest known workload, one of LEVELS; None when the workload itself is known."""
    unknown: Unknown


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """Of left-out latencies, logarithms over their deviations, in order; and the target of each by its number."""

    values: Floats
    targets: NDArray[np.int64]

    @property
    def ends(self) -> tuple[float, float, float]:
        """Low end, median, high end: the ends are those ranks between which one more error falls with COVERAGE."""
        count = len(self.values)
        low = max(0, math.floor((count + 1) * (1.0 - COVERAGE) / 2) - 1)
        return float(self.values[low]), float(np.median(self.values)), float(self.values[count - 1 - low])

    def drawn(self, targets: NDArray[np.int64], generator: np.random.Generator) -> Floats:
        """For each of `targets` one of its errors; any error where it has none."""
        found = generator.choice(self.values, len(targets))
        for target in np.unique(self.targets):
            places = np.flatnonzero(targets == target)
            found[places] = generator.choice(self.values[self.targets == target], len(places))
        return found


class Expectations:
    """What follows from `known`; those on targets without rates tell nothing. Work grows as the square of their number,
    most of it in the first answer."""

    def __init__(self, known: Sequence[Best]) -> None:
        self._known = [best for best in known if best.place.told]
        self._places = list({best.place.identity: best.place for best in self._known}.values())
        self._left_out: dict[Question, Errors] = {}

    def of(self, computations: Sequence[Computation], place: Place) -> list[Expected | None]:
        """For each computation; None where too little is known of hardware of its kind, or the target has no rates."""
        if not computations or not self._can_tell(place):
            return [None] * len(computations)
        asked = Sites.of([(each, place) for each in computations], self._typical)
        center, deviation = self._told(covariance(asked, self._sites), np.ones((len(computations), 1), dtype=bool))
        center = center + [log_roofline(each, place) for each in computations]
        unknown = self._unknown(place)
        nearest = likeness(asked, self._sites).max(axis=1)
        generator = np.random.default_rng(0)
        # Errors on one target go together: each draw takes those of all workloads from the same target.
        targets = generator.choice(self._numbers, DRAWS)
        answers: list[Expected | None] = []
        for computation, log_s, scale, alike in zip(computations, center, deviation, nearest, strict=True):
            level = None if computation.key in self._keys else max(level for level in LEVELS if level <= alike)
            errors = self._errors(Question(level, unknown))
            if len(errors.values) < LEAST_EXAMPLES:
                answers.append(None)
                continue
            low_s, latency_s, high_s = (math.exp(log_s + scale * end) for end in errors.ends)
            draws = np.exp(log_s + scale * errors.drawn(targets, generator))
            answers.append(Expected(latency_s, low_s, high_s, draws))
        return answers

    def most_telling(self, computations: Sequence[Computation], place: Place) -> int | None:
        """Which of `computations`, if it were known on the target, would make the others surest there: the one that
        takes most off the sum of their variances (Cohn, "Neural Network Exploration Using Optimal Experiment Design",
        1996). None where nothing can be told of any."""
        if not computations or not self._can_tell(place):
            return None
        asked = Sites.of([(each, place) for each in computations], self._typical)
        across = covariance(asked, self._sites)
        among = self._covariance + NOISE * np.eye(len(self._known))
        left = covariance(asked, asked) - across @ np.linalg.solve(among, across.T)
        taken_off = (left**2).sum(axis=0) / (left.diagonal() + NOISE)
        return int(taken_off.argmax())

    def _can_tell(self, place: Place) -> bool:
        """The target's rates are known, and enough is of hardware of its kind (a GPU or none)."""
        return place.told and sum(best.place.hardware[0] == place.hardware[0] for best in self._known) >= LEAST_EXAMPLES

    def _unknown(self, place: Place) -> Unknown:
        if any(known.identity == place.identity for known in self._places):
            return Unknown.NOTHING
        return Unknown.TARGET if any(known.silicon == place.silicon for known in self._places) else Unknown.SILICON

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(best.computation.key for best in self._known)

    @cached_property
    def _typical(self) -> Floats:
        """(attribute,) what stands for an attribute that is not known of a target."""
        tokens = np.array([place.hardware for place in self._places])
        values, known = tokens[:, 1 : 1 + len(UNITS)], tokens[:, 1 + len(UNITS) :]
        typical: Floats = (values * known).sum(axis=0) / np.maximum(known.sum(axis=0), 1.0)
        return typical

    @cached_property
    def _sites(self) -> Sites:
        return Sites.of([(best.computation, best.place) for best in self._known], self._typical)

    @cached_property
    def _covariance(self) -> Floats:
        return covariance(self._sites, self._sites)

    @cached_property
    def _likeness(self) -> Floats:
        return likeness(self._sites, self._sites)

    @cached_property
    def _slowness(self) -> Floats:
        """(known,) logarithm of each latency over the roofline."""
        return np.array([math.log(best.latency_s) - log_roofline(best.computation, best.place) for best in self._known])

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """(known,) which of the known targets."""
        number = {place.identity: index for index, place in enumerate(self._places)}
        return np.array([number[best.place.identity] for best in self._known])

    @cached_property
    def _silicons(self) -> NDArray[np.int64]:
        """(known,) which silicon."""
        silicons = [best.place.silicon for best in self._known]
        return np.unique(silicons, return_inverse=True)[1]

    def _told(self, across: Floats, allowed: Flags) -> tuple[Floats, Floats]:
        """Median and deviation of slowness at sites, from those known ones that are `allowed` (site, known).

        across: (site, known) covariance with the known ones.
        """
        allowed = np.broadcast_to(allowed, across.shape)
        count = min(NEIGHBOURS, across.shape[1])
        nearest = np.argpartition(np.where(allowed, -across, np.inf), count - 1, axis=1)[:, :count]
        used = np.take_along_axis(allowed, nearest, axis=1)
        with_site = np.take_along_axis(across, nearest, axis=1) * used  # (site, neighbour)
        both = used[:, :, None] & used[:, None, :]
        among = self._covariance[nearest[:, :, None], nearest[:, None, :]] * both + NOISE * np.eye(count)
        among += np.eye(count) * ~both  # neighbours that are not used stand alone
        slowness = self._slowness[nearest]
        level = (slowness * used).sum(axis=1, keepdims=True) / np.maximum(used.sum(axis=1, keepdims=True), 1)
        weights = np.linalg.solve(among, with_site[:, :, None])[:, :, 0]
        center = level[:, 0] + (weights * (slowness - level) * used).sum(axis=1)
        variance = TOTAL + NOISE - (weights * with_site).sum(axis=1)
        return center, np.sqrt(np.maximum(variance, NOISE))

    def _errors(self, question: Question) -> Errors:
        """For questions of this kind."""
        if question not in self._left_out:
            self._left_out[question] = self._leave_out(question)
        return self._left_out[question]

    def _leave_out(self, question: Question) -> Errors:
        allowed = ~self._hidden(question.unknown)
        same = self._sites.keys[:, None] == self._sites.keys[None]
        if question.likeness is None:
            examples = np.flatnonzero((same & allowed).any(axis=1))
        else:
            allowed &= ~same & (self._likeness <= question.likeness)
            examples = np.flatnonzero(allowed.any(axis=1))
        examples = np.random.default_rng(0).permutation(examples)[:MOST_EXAMPLES]
        center, deviation = self._told(self._covariance[examples], allowed[examples])
        errors = (self._slowness[examples] - center) / deviation
        order = np.argsort(errors)
        return Errors(errors[order], self._numbers[examples][order])

    def _hidden(self, unknown: Unknown) -> Flags:
        """(known, known) what each would be asked without if this much of its target were not known."""
        group = {
            Unknown.NOTHING: np.arange(len(self._known)),
            Unknown.TARGET: self._numbers,
            Unknown.SILICON: self._silicons,
        }[unknown]
        hidden: Flags = group[:, None] == group[None]
        return hidden


def log_roofline(computation: Computation, place: Place) -> float:
    """Logarithm of the least seconds that a call of the computation can take there: all arithmetic at peak rate, or
    everything that it uses streamed."""
    peak, bandwidth = attribute(place.token, "peak_flops_per_s"), attribute(place.token, "memory_bytes_per_s")
    assert peak is not None and bandwidth is not None, "of a target whose rates are told"
    streamed = sum(_bytes(dtype) * count for dtype, count in _used(computation))
    return math.log(CALL_S + max(computation.flops / peak, streamed / bandwidth))


def _used(computation: Computation) -> list[tuple[str, float]]:
    """Element type and number of elements of each argument, as far as there are operations or outputs to take them in:
    a look-up reads little of its table."""
    most = max(computation.flops, math.prod(computation.arguments[-1][1]))
    return [(dtype, float(min(math.prod(sizes), most))) for dtype, sizes in computation.arguments]


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """Where latencies are known or asked for."""

    keys: NDArray[np.str_]
    operators: tuple[frozenset[str], ...]
    sizes: Floats
    """(site, 4) logarithms to base 2: operations, bytes, elements of the output, of the largest argument."""
    hardware: Floats
    """(site, 1 + attribute)"""
    targets: NDArray[np.str_]
    """(site,) identities"""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Computation, Place]], typical: Floats) -> Sites:
        hardware = {place.identity: _hardware(place, typical) for _, place in pairs}
        return cls(
            np.array([each.key for each, _ in pairs]),
            tuple(frozenset(each.name.split("_")) for each, _ in pairs),
            np.array([_sizes(each) for each, _ in pairs]),
            np.array([hardware[place.identity] for _, place in pairs]),
            np.array([place.identity for _, place in pairs]),
        )


def covariance(one: Sites, other: Sites) -> Floats:
    """(one, other) how far the slowness of sites goes together."""
    same = one.keys[:, None] == other.keys[None]
    target = one.targets[:, None] == other.targets[None]
    workload = likeness(one, other)
    hardware = np.exp(-0.5 * _squares(one.hardware, other.hardware) / HARDWARE_RANGE**2)
    found: Floats = (
        COMMON
        + LIKE_WORKLOADS * workload
        + LIKE_BOTH * workload * hardware
        + SAME_WORKLOAD * same
        + SAME_WORKLOAD_LIKE_HARDWARE * same * hardware
        + SAME_TARGET * target
        + LIKE_WORKLOADS_SAME_TARGET * target * workload
    )
    return found


def likeness(one: Sites, other: Sites) -> Floats:
    """(one, other) how like the workloads are: 1 for the same operators on the same sizes."""
    sizes = np.exp(-0.5 * _squares(one.sizes, other.sizes) / SIZE_RANGE**2)
    found: Floats = sizes * _shared(one.operators, other.operators)
    return found


def _shared(one: Sequence[frozenset[str]], other: Sequence[frozenset[str]]) -> Floats:
    """(one, other) operators that two names share, of all that either has (Jaccard's index)."""
    rows = {name: index for index, name in enumerate(set(one))}
    columns = {name: index for index, name in enumerate(set(other))}
    table = np.array([[len(a & b) / len(a | b) for b in columns] for a in rows])
    found: Floats = table[np.ix_([rows[name] for name in one], [columns[name] for name in other])]
    return found


def _squares(one: Floats, other: Floats) -> Floats:
    """(one, other) squared distances between rows."""
    found: Floats = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2.0 * one @ other.T
    return np.maximum(found, 0.0)


def _hardware(place: Place, typical: Floats) -> Floats:
    token = np.array(place.hardware)
    values, known = token[1 : 1 + len(UNITS)], token[1 + len(UNITS) :]
    return np.concatenate([token[:1], np.where(known > 0, values, typical)])


def _sizes(computation: Computation) -> list[float]:
    used = _used(computation)
    output, largest = used[-1][1], max(count for _, count in used)
    streamed = sum(_bytes(dtype) * count for dtype, count in used)
    return [math.log2(1.0 + value) for value in (computation.flops + output, streamed, output, largest)]


def _bytes(dtype: str) -> float:
    """Of one element: `float32` has four, `bool` one."""
    bits = re.search(r"\d+", dtype)
    return max(1.0, int(bits[0]) / 8) if bits else 1.0


def total(terms: Sequence[tuple[float, Expected | float]]) -> Expected:
    """The sum of weight times latency: of what was measured (seconds) and of what is expected of one answer.

    By simulation, since errors on one target go together and do not cancel as independent ones would.
    """
    draws = np.zeros(DRAWS)
    for weight, each in terms:
        draws = draws + weight * (each.draws if isinstance(each, Expected) else each)
    outside = (1.0 - COVERAGE) / 2
    low_s, latency_s, high_s = np.quantile(draws, [outside, 0.5, 1.0 - outside])
    return Expected(float(latency_s), float(low_s), float(high_s), draws)
