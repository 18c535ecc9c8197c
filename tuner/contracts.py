"""Plain values that cross the tuner's borders: no TVM object, no database row, JSON at the edge.

Everything here is picklable and JSON-friendly, so that the service, the database and the child processes
(which speak length-prefixed JSON) share one vocabulary. Latencies are seconds, sizes bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

TraceJson = list[Any]
"""A schedule's trace as `[instructions, decisions]` of TVM's `Trace.as_json`, cut at EnterPostproc."""


class Invalidity(StrEnum):
    """Why a candidate has no latency (names follow the T4 results schema where it has one)."""

    COMPILE = "compile"
    REPLAY = "replay"
    CORRECTNESS = "correctness"
    RUNTIME = "runtime"
    TIMEOUT = "timeout"
    DEVICE_LOST = "device_lost"
    OUT_OF_MEMORY = "out_of_memory"

    @property
    def permanent(self) -> bool:
        """True when another attempt cannot end differently, so the schedule is never proposed again."""
        return self in {Invalidity.COMPILE, Invalidity.REPLAY, Invalidity.CORRECTNESS, Invalidity.RUNTIME}


class Quality(StrEnum):
    """How much a latency may be trusted."""

    QUICK = "quick"
    """Hot caches, one warm-up, a few milliseconds in all."""
    FULL = "full"
    """Cold weights, enough repeats for a median."""
    CENSORED = "censored"
    """Stopped early: the latency is a lower bound."""


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What a compiler must know of the hardware; two targets are the same exactly when these fields are.

    `triple` has no vendor part (`x86_64-linux-gnu`); `cores` is num-cores and the thread count;
    `model` is the processor or GPU model, so that records of other silicon never merge.
    """

    kind: str
    mcpu: str
    cores: int
    model: str
    mattr: tuple[str, ...] = ()
    triple: str = ""

    @property
    def identity(self) -> str:
        """sha256 (hex) of the fields: the key of every record."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mattr": list(self.mattr)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TargetSpec:
        return cls(**{**value, "mattr": tuple(value.get("mattr", ()))})


@dataclass(frozen=True, slots=True)
class Workload:
    """One fused subgraph with fixed shapes and dtypes.

    `sha256` identifies the canonical module under `tvm_version`; `version_free_key` identifies the compute graph
    under any. `module` is TVM's JSON of the canonical IRModule (one PrimFunc named `main`).
    """

    sha256: str
    version_free_key: str
    name: str
    module: str
    flops: float
    args: tuple[tuple[str, tuple[int, ...]], ...]
    """(dtype, shape) of each argument, outputs last."""
    output_count: int
    tvm_version: str
    pipeline_version: int


@dataclass(frozen=True, slots=True)
class NetworkTask:
    """A workload inside one network; `weight` is how often one inference calls it."""

    workload: Workload
    weight: int


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """What an import step learns about a network: no weights in it."""

    graph_key: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(name, dtype, shape)"""
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    tasks: tuple[NetworkTask, ...]
    layout: str
    """`NHWC`, `NCHW` or `mixed`: what the convolutions ended up with."""
    layout_note: str
    """One sentence for people: why it is so."""
    synthetic_weights: bool
    """True when large initialisers were missing and seeded random values stand for them."""
    pipeline_version: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to time a candidate: latencies, or the reason why there are none."""

    latencies_s: tuple[float, ...]
    quality: Quality
    invalidity: Invalidity | None = None
    detail: str = ""
    disturbed: bool = False
    conditions: dict[str, Any] = field(default_factory=dict)
    """threads, cold (bool), reference_ratio, tvm_version, sandbox, build_s, run_s"""


@dataclass(frozen=True, slots=True)
class KnownSchedule:
    """What the database already knows of one schedule of a workload on this target (or a transferred seed)."""

    trace: TraceJson
    schedule_sha256: str
    latency_s: float | None
    quality: Quality | None
    invalidity: Invalidity | None
    features: bytes | None = None
    """See cost_model.features: float16 statement features, compressed, with a layout version."""
    module_sha256: str | None = None
    quick_s: float | None = None
    """With hot caches, where it was measured so; a full latency is longer, so only these put schedules in order."""

    @property
    def order_s(self) -> float | None:
        """What to compare with other schedules of the workload on this target."""
        return self.latency_s if self.quick_s is None else self.quick_s


@dataclass(frozen=True, slots=True)
class MeasuredElsewhere:
    """Schedules of the same workload on another target, for the ranker: latencies compare only among them."""

    target: TargetSpec
    attributes: dict[str, Any]
    """What is known of its hardware."""
    traces: tuple[TraceJson, ...]
    latencies_s: tuple[float | None, ...]
    """One for each trace; None: it failed there."""

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.to_json(),
            "attributes": self.attributes,
            "traces": self.traces,
            "latencies_s": self.latencies_s,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MeasuredElsewhere:
        target = TargetSpec.from_json(value["target"])
        return cls(target, value["attributes"], tuple(value["traces"]), tuple(value["latencies_s"]))


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A measured program of any workload of this target, for the ranker; comparable only within `group`."""

    group: str
    features: bytes
    latency_s: float | None


SHORTLIST = 8.0
"""Programs lowered for each one that is measured, before a round has told what either costs."""


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Everything a round needs; it holds no state of its own, so it can run anywhere, twice, or after a crash."""

    target: TargetSpec
    workload: Workload
    known: tuple[KnownSchedule, ...]
    examples: tuple[TrainingExample, ...]
    trials: int
    seed: int
    build_timeout_s: float = 10.0
    run_timeout_s: float = 10.0
    ranker: str = "attention"
    model_folder: str | None = None
    """Where the attention ranker's model lies; None: the one that comes with the package."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What is known of the target's hardware."""
    elsewhere: tuple[MeasuredElsewhere, ...] = ()
    near: tuple[TraceJson, ...] = ()
    """Fast schedules of workloads like this one, the most promising first."""
    shortlist: float = SHORTLIST
    """Programs to lower for each one that is measured, where the ranker has an opinion."""
    unmeasured: bool = False
    """The candidates are used as they are: the default schedule and those of `near` have to compete with the others."""


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """A candidate with every attempt to time it; `module_sha256` is equal for structurally equal programs."""

    trace: TraceJson
    schedule_sha256: str
    module_sha256: str
    features: bytes | None
    predicted_score: float | None
    attempts: tuple[Attempt, ...]
    source: str = "search"
    """search | default | transfer (the same workload elsewhere) | neighbour (a workload like it)"""


@dataclass(frozen=True, slots=True)
class Offered:
    """Schedules from elsewhere in one round, and how many of them fit this workload on this target."""

    schedules: int
    fit: int


@dataclass(frozen=True, slots=True)
class RoundResult:
    candidates: tuple[CandidateResult, ...]
    exhausted: bool
    """The space has no unmeasured candidate left, as far as several tries could tell."""
    stopped: bool
    """`should_stop` ended the round early; what is here is complete and may be stored."""
    reference_s: float | None
    timings_s: dict[str, float]
    """search, build, wait_for_device, run: where the time went"""
    offered: dict[str, Offered] = field(default_factory=dict)
    """By source: what other targets and like workloads had to offer."""
    note: str = ""
    """What kept the search from doing its best, for people: no design space, no usable model; empty otherwise."""


Measuring = Callable[[], AbstractContextManager[None]]
"""Enters the device's lease: held while anything is timed, and only then."""

ShouldStop = Callable[[], bool]


MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class PinnedSchedule:
    workload_sha256: str
    trace: TraceJson
    schedule_sha256: str
    latency_s: float | None
    """Where it was measured."""
    label: str = MEASURED
    """MEASURED: on this target; any other: it was never tried here, and may be left out."""
    expected_latency_s: float | None = None
    """What tuning is expected to reach here, where that was not measured."""

    @property
    def tried(self) -> bool:
        return self.label == MEASURED


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Compile a network with pinned schedules; workloads without one get the default schedule."""

    target: TargetSpec
    network_path: str
    """The network's ONNX bytes in a file."""
    shapes: dict[str, tuple[int, ...]]
    schedules: tuple[PinnedSchedule, ...]
    output_folder: str
    seed: int
    timeout_s: float = 600.0
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Why workloads (by sha256) get their default schedule although another one was wanted."""

    @property
    def all_tried(self) -> bool:
        return all(schedule.tried for schedule in self.schedules)

    def without_untried(self, reason: str) -> BuildRequest:
        """The same with the default schedule for each workload whose own was never tried on the target."""
        untried = {schedule.workload_sha256: reason for schedule in self.schedules if not schedule.tried}
        tried = tuple(schedule for schedule in self.schedules if schedule.tried)
        return replace(self, schedules=tried, defaults={**self.defaults, **untried})


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """Verified and timed, or refused: `refused` names what was wrong and nothing may be used."""

    manifest: dict[str, Any]
    tuned_latency_s: float | None
    untuned_latency_s: float | None
    reference_latency_s: float | None
    """onnxruntime's, same cores and threads."""
    largest_error: float | None
    workloads_applied: int
    workloads_total: int
    refused: str | None = None


class CrosstuneError(Exception):
    """Base of every error that crosstune raises on purpose; its text is fit for the user."""


class NetworkRefused(CrosstuneError):
    """The network cannot be imported; `code` is stable, `detail` says what was wrong and what would be right."""

    def __init__(self, code: str, detail: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.facts = code, detail, facts or {}


class TargetRefused(CrosstuneError):
    """A target description that cannot be used; the text names the field and a right value."""


class ChildFailed(CrosstuneError):
    """A child process ended without an answer; `invalidity` says how a candidate in it is to be judged."""

    def __init__(self, invalidity: Invalidity, detail: str) -> None:
        super().__init__(detail)
        self.invalidity, self.detail = invalidity, detail


def sha256_json(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])
