"""Targets: what a compiler must know of the hardware."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from crosstune.service.schemas.common import (
    LARGEST_SEED,
    MAX_TRIALS,
    In,
    Labels,
    Name,
    Out,
    Reference,
    Text,
    Time,
)

Cores = Annotated[int, Field(ge=1, le=1024, description="Cores, and so threads, that a network uses.")]
Features = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[+-][A-Za-z0-9._-]{1,40}$")], ...],
    Field(max_length=200, description="Instruction-set features, each +name or -name."),
]
CompilerWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class TargetIn(In):
    """A target described by hand. `cores` is needed: it decides half of the result and is never guessed."""

    kind: Literal["llvm"] = Field("llvm", description="TVM's target kind; CPUs are `llvm`.")
    mcpu: CompilerWord = Field(description="LLVM's processor name, such as znver4 or skylake-avx512.")
    cores: Cores
    model: Text = Field(min_length=1, description="Processor model, so that records of other silicon never merge.")
    mattr: Features = ()
    triple: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = Field(
        "", description="LLVM triple without vendor, such as x86_64-linux-gnu; empty for the service's own."
    )
    name: Name | None = Field(None, description="Made from the description when left out.")
    device: Reference | None = Field(None, description="A device that can stand for this target and measure on it.")
    labels: Labels = Field(default_factory=dict)


class DetectIn(In):
    """Register the machine that the service runs on; each member given overrides what is detected.

    Different values give different targets on one machine, such as one core or an older instruction set.
    """

    name: Name | None = None
    cores: Cores | None = None
    mcpu: CompilerWord | None = None
    mattr: Features | None = None
    labels: Labels = Field(default_factory=dict)


class HardwareFact(Out):
    """One attribute of the hardware with its origin."""

    value: Any
    origin: str = Field(description="detected, table or calibrated")


class TargetOut(Out):
    id: str
    name: str
    identity: str = Field(description="sha256 of kind, mcpu, cores, model, mattr and triple: the key of every record.")
    kind: str
    mcpu: str
    cores: int
    model: str
    mattr: list[str]
    triple: str
    attributes: dict[str, HardwareFact]
    devices: list[str] = Field(description="Devices that can measure for this target.")
    labels: dict[str, str]
    created_at: Time


class CalibrateIn(In):
    device: Reference | None = Field(None, description="Which device to calibrate; any of the target's when left out.")


class ExploreMethod(StrEnum):
    INFORMATIVE = "informative"
    RANDOM = "random"


class ExploreIn(In):
    """Measure stored workloads on a target that knows little of them."""

    trials: int = Field(default=256, ge=1, le=MAX_TRIALS, description="Programs to measure, in all.")
    method: ExploreMethod = Field(
        default=ExploreMethod.INFORMATIVE,
        description="`informative`: always the workload of which least is known on such hardware; `random`: any.",
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of everything that is drawn.")


class StepOut(Out):
    """A piece of durable work that was accepted."""

    step: str
    kind: str
    target: str
    device: str
