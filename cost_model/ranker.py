"""What the search asks of a cost model: put candidates of one workload on one target in order.

A ranker sees statement features and, when the caller has them, the rest of the candidate (`Context`): a model that
attends over hardware, workload and schedule takes those too, one that does not may ignore them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.features import Matrix

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Schedules of the same workload that were measured on another target."""

    target: Mapping[str, Any]
    """That target's fields, with its `attributes` where they are known."""
    traces: Sequence[Sequence[Any]]
    latencies_s: Sequence[float | None]
    """Of each trace; None: it failed there."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a candidate is besides its statements; every part may be missing."""

    workload_module: str | None = None
    """TVM's JSON of the workload's IRModule."""
    target: Mapping[str, Any] | None = None
    """A target's fields as JSON."""
    trace: Sequence[Any] | None = None
    """[instructions, decisions]"""
    elsewhere: Sequence[Elsewhere] = ()
    """What is known of the workload on other targets."""


@dataclass(frozen=True, slots=True)
class Example:
    """A measured candidate. Latencies compare only within `group` (one workload on one target)."""

    group: str
    features: Matrix
    """(stores, 164)"""
    latency_s: float | None
    """None: it failed."""
    context: Context | None = None


@runtime_checkable
class Ranker(Protocol):
    """A model that can be fitted and asked many times; one object serves one thread."""

    @property
    def informed(self) -> bool:
        """False while the scores mean nothing, so that the caller can spare what ordering costs."""

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn from all of `examples` at once; what was learnt from earlier calls is dropped."""

    def score(self, features: Sequence[Matrix], contexts: Sequence[Context] | None = None) -> Scores:
        """One score per candidate, higher = faster, comparable within one call (one workload on one target).

        `contexts`, when given, is as long as `features`.
        """


def labels(examples: Sequence[Example]) -> NDArray[np.float32]:
    """Speed relative to the fastest example of the same group, in (0, 1]; 0 for failures."""
    fastest: dict[str, float] = {}
    for example in examples:
        if example.latency_s is not None:
            fastest[example.group] = min(fastest.get(example.group, np.inf), example.latency_s)
    return np.array(
        [0.0 if each.latency_s is None else fastest[each.group] / each.latency_s for each in examples],
        dtype=np.float32,
    )


class NeutralRanker:
    """No opinion: a seeded random order."""

    informed = False

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def fit(self, examples: Sequence[Example]) -> None:
        """Learns nothing."""

    def score(self, features: Sequence[Matrix], contexts: Sequence[Context] | None = None) -> Scores:
        return self._random.random(len(features))
