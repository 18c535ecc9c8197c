"""Cost models: versions, their training, how they compare."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from crosstune.cost_model.pruning.names import PruningMethod
from crosstune.service.schemas.common import LARGEST_SEED, In, Labels, Out, Reference, Sha256, Time

Operator = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,40}$")]
Version = Annotated[str, StringConstraints(pattern=r"^(shipped|mdl_[0-9a-f-]{36})$")]
"""Id of a version, or `shipped`: the one that comes with the package."""


Decision = tuple[int, int | list[int]]
"""An instruction's number, and what is decided there: an index, a place, or tile factors."""


class CostModelKind(StrEnum):
    ATTENTION = "attention"
    XGBOOST = "xgboost"


class Pruning(In):
    method: PruningMethod = PruningMethod.STRATIFIED_DISTINCT
    keep: float = Field(default=0.8, gt=0, le=1, description="Share of the records that training sees.")
    most_programs: int = Field(
        default=60_000, ge=100, description="Programs that training sees at most: it holds them all."
    )


class RetrainBudget(In):
    seconds: float = Field(default=900.0, gt=0, le=24 * 3600.0, description="No epoch begins after so long.")
    epochs: int = Field(
        default=12, ge=1, le=1000, description="Epochs at most; it stops when validation gets no better."
    )


class RetrainIn(In):
    """What to train from what. Without filters, from every record that is believed."""

    kind: CostModelKind = Field(
        default=CostModelKind.ATTENTION, description="`xgboost`: trees alone, which need no torch to be trained."
    )
    targets: tuple[Reference, ...] = Field(
        default=(), max_length=100, description="Records of these targets; empty: of all."
    )
    operators: tuple[Operator, ...] = Field(
        default=(),
        max_length=100,
        description="Workloads with any of these in their name, such as `conv2d`; empty: all.",
    )
    since: Time | None = Field(default=None, description="Records that changed since.")
    labels: Labels = Field(default_factory=dict, description="Records measured by jobs with all of these labels.")
    imported: bool = Field(
        default=False, description="Learn from records too that were imported and never measured here."
    )
    shipped_data: bool = Field(default=True, description="Learn from the data that comes with the package besides.")
    pruning: Pruning = Pruning()
    base: Version | None = Field(
        default=None,
        description="Begin with this version's network; left out: from scratch. Trees are always grown anew.",
    )
    budget: RetrainBudget = RetrainBudget()
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of everything that is drawn.")


class JudgeIn(In):
    """Versions to judge on the same programs, old ones too; the champion and the shipped one come besides."""

    versions: tuple[Version, ...] = Field(min_length=1, max_length=16)


class JudgeOut(Out):
    """A judgement that was accepted; GET /v1/steps/{step} says how far it is, then the versions compare."""

    step: str
    versions: list[str]


class Between(Out):
    """A mean and the middle 95 % of its bootstrap over workloads."""

    mean: float
    low: float
    high: float


class Quality(Out):
    """How well a version ranks the programs that none learns from."""

    groups: int = Field(description="Workloads on their targets.")
    metrics: dict[str, Between] = Field(description="top1, top5, pairwise: 1 is perfect.")
    by_target: dict[str, Between] = Field(description="top1 by target.")


class CostModelOut(Out):
    id: str = Field(description="`shipped` for the one that comes with the package.")
    version: int = Field(description="Counts up; 0 for the shipped one.")
    kind: CostModelKind
    state: str = Field(description="training, cancelling, cancelled, failed, candidate, champion or retired.")
    parent: str | None = Field(default=None, description="The champion when its training began.")
    data_fingerprint: str | None = Field(default=None, description="sha256 that names what it learnt from.")
    failure: str | None = None
    withdrawn: list[str] = Field(
        default_factory=list,
        description="Why measurements were withdrawn that it may have learnt from; a retraining leaves them out.",
    )
    created_at: Time | None = None


class CostModelDetail(CostModelOut):
    request: dict[str, Any] | None = Field(default=None, description="What was asked for.")
    code_version: str | None = Field(default=None, description="crosstune that trained it.")
    training: dict[str, Any] | None = Field(default=None, description="What it learnt from, and each epoch.")
    quality: Quality | None = Field(default=None, description="Absent where nothing could be judged.")
    progress: list[dict[str, Any]] = Field(description="What its training has told so far.")


class ComparisonOut(Out):
    """Two versions on the same programs; differences are the first's minus the second's."""

    first: str
    second: str
    data_fingerprint: str = Field(description="Of the judged data.")
    groups: int
    overall: dict[str, Between]
    by_target: dict[str, Between]
    may_replace: bool = Field(description="Whether the first may be promoted over the second.")
    reasons: list[str] = Field(description="Why not.")


class Accuracy(Out):
    """How well measured batches were ranked before they were measured, in the mean over the newest."""

    target: str
    operator: str | None = Field(default=None, description="Name of the workloads; absent: all of the target.")
    checks: int = Field(description="Batches.")
    pairwise: float = Field(description="Share of the pairs of a batch that were in the right order; chance is 0.5.")
    regret_top1: float = Field(description="How much slower the first-ranked was than the best of its batch.")
    regret_top5: float = Field(description="The same of the best of the five that were ranked first.")
    cost_models: list[str] = Field(description="Versions that ranked them.")
    since: Time = Field(description="When the oldest of these batches was measured.")
    drifting: bool = Field(description="The pairwise accuracy is below the threshold, on enough batches to tell.")


class DriftOut(Out):
    threshold: float
    window: int = Field(description="Newest batches of a target that count.")
    entries: list[Accuracy]


class PredictIn(In):
    """Schedules of one workload that are made alike: a trace has instructions and decisions."""

    workload: Sha256
    target: Reference
    instructions: list[Any] = Field(min_length=1, max_length=1000, description="Of a trace, the same for all.")
    decisions: list[list[Decision]] = Field(
        min_length=1, max_length=512, description="Of each schedule: pairs of an instruction's number and its decision."
    )


class PredictOut(Out):
    """One entry for each schedule, in order."""

    version: str
    scores: list[float] = Field(description="Higher is faster; they compare among these schedules only.")
