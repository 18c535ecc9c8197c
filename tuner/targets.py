"""Targets: what this machine can stand for, which descriptions are right, and what can be measured where."""

from __future__ import annotations

import difflib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crosstune.tuner import hardware
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import TargetRefused, TargetSpec
from crosstune.tuner.hardware import Attributes, HardwareAttribute, Origin

DESCRIBE = "operations.describe_machine:run"
CHECK = "operations.describe_machine:check_processor"
CALIBRATE = "operations.calibrate:run"
DESCRIBE_S = 60.0
CALIBRATE_S = 60.0
CPU_KIND = "llvm"
MOST_CORES = 1024
GENERIC_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
"""Instruction-set levels of the x86-64 psABI: AVX-512, AVX2, SSE4.2."""
LEVEL_BITS = {"x86-64-v3": 256.0, "x86-64-v2": 128.0}
EXAMPLE = '{"kind": "llvm", "mcpu": "znver3", "cores": 8, "model": "AMD EPYC 7713"}'
TRIPLE = re.compile(r"[a-z0-9_]+-[a-z]+-[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor at hand, as the compiler sees it."""

    model: str
    vendor: str
    mcpu: str
    triple: str
    cores: int
    features: tuple[str, ...]
    """LLVM's names of what this very machine offers; a virtual machine may hide some of its model's."""
    missing: tuple[str, ...]
    """Features that `mcpu` implies and this machine lacks."""
    runnable: tuple[str, ...]
    """Every mcpu whose code runs here."""
    attributes: Attributes

    @property
    def mattr(self) -> tuple[str, ...]:
        """What to tell LLVM beside `mcpu`, so that it emits nothing that this machine lacks."""
        return tuple(f"-{name}" for name in self.missing)


def detect_machine(template: Template) -> Machine:
    """Look at this machine, with a child's help for what only LLVM knows; ChildFailed when none can be had."""
    triple = f"{platform.machine()}-linux-gnu"
    with template.spawn("describe") as child:
        found = child.call(DESCRIBE, {"triple": triple}, DESCRIBE_S)
    attributes = hardware.detect()
    return Machine(
        model=str(attributes["model"].value),
        vendor=str(attributes["vendor"].value),
        mcpu=found["mcpu"],
        triple=triple,
        cores=hardware.usable_cores(),
        features=tuple(found["features"]),
        missing=tuple(found["missing"]),
        runnable=tuple(found["runnable"]),
        attributes=attributes,
    )


def native(machine: Machine, cores: int | None = None) -> TargetSpec:
    """This machine as a target: its own instruction set, all cores unless told otherwise."""
    return TargetSpec(CPU_KIND, machine.mcpu, cores or machine.cores, machine.model, machine.mattr, machine.triple)


def variants(machine: Machine) -> list[TargetSpec]:
    """The targets that this machine can stand for: different hardware to a compiler, the same silicon.

    Native on all cores first, then on one core, then the generic instruction sets below the native one.
    """
    single = [native(machine, 1)] if machine.cores > 1 else []
    levels = [level for level in GENERIC_LEVELS if level in machine.runnable and level != machine.mcpu]
    generic = [TargetSpec(CPU_KIND, level, machine.cores, machine.model, (), machine.triple) for level in levels]
    return [native(machine), *single, *generic]


def default_name(spec: TargetSpec) -> str:
    """A name for people, such as `amd-epyc-7713-znver3-8`."""
    return re.sub(r"[^a-z0-9]+", "-", f"{spec.model} {spec.mcpu} {spec.cores}".lower()).strip("-")


def parse(value: Mapping[str, Any]) -> TargetSpec:
    """A target from somebody's JSON object; TargetRefused names the field that is wrong and gives a right value."""
    unknown = sorted(set(value) - {"kind", "mcpu", "cores", "model", "mattr", "triple"})
    if unknown:
        raise TargetRefused(f"a target has no field {unknown[0]!r}; an example: {EXAMPLE}")
    for name in ("mcpu", "model"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise TargetRefused(f"a target needs {name!r} as a string; an example: {EXAMPLE}")
    cores = value.get("cores")
    if type(cores) is not int:
        raise TargetRefused(f"a target needs 'cores', the number of threads to tune for; an example: {EXAMPLE}")
    mattr = value.get("mattr", ())
    if not isinstance(mattr, list | tuple) or not all(isinstance(item, str) for item in mattr):
        raise TargetRefused('\'mattr\' is a list of LLVM features with their signs, such as ["+avx2", "-avx512f"]')
    kind, triple = value.get("kind", CPU_KIND), value.get("triple") or f"{platform.machine()}-linux-gnu"
    return TargetSpec(str(kind), value["mcpu"], cores, value["model"].strip(), tuple(sorted(mattr)), str(triple))


def validate(spec: TargetSpec, template: Template) -> None:
    """Raise TargetRefused, with what would be right, unless the target can be compiled for.

    More cores than this machine has are no fault: such a target can be registered, and measured elsewhere.
    """
    if spec.kind != CPU_KIND:
        raise TargetRefused(f"'kind' {spec.kind!r} is not supported; use {CPU_KIND!r}")
    if not 1 <= spec.cores <= MOST_CORES:
        raise TargetRefused(f"'cores' is {spec.cores}; a target needs 1 to {MOST_CORES}; an example: {EXAMPLE}")
    if not spec.model.strip():
        raise TargetRefused(f"'model' is empty; it names the processor model; an example: {EXAMPLE}")
    for item in spec.mattr:
        if not re.fullmatch(r"[+-][a-z0-9.-]+", item):
            raise TargetRefused(f"'mattr' has {item!r}; a feature has a sign, such as '+avx2' or '-avx512f'")
    if not TRIPLE.fullmatch(spec.triple):
        raise TargetRefused(f"'triple' {spec.triple!r} is not architecture-system-abi, such as 'x86_64-linux-gnu'")
    _check_processor(spec, template)


def _check_processor(spec: TargetSpec, template: Template) -> None:
    with template.spawn("check-target") as child:
        known: list[str] = child.call(CHECK, {"triple": spec.triple}, DESCRIBE_S)["known"]
    if not known:
        raise TargetRefused(f"'triple' {spec.triple!r}: LLVM cannot compile for it here; try 'x86_64-linux-gnu'")
    if spec.mcpu not in known:
        near = difflib.get_close_matches(spec.mcpu, known, n=3, cutoff=0.3)
        raise TargetRefused(
            f"'mcpu' {spec.mcpu!r} is not a processor that LLVM knows for {spec.triple}"
            + (f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else "")
        )


def can_measure(spec: TargetSpec, machine: Machine) -> str | None:
    """None when `machine` can stand for the target, else the reason why not."""
    if spec.kind != CPU_KIND:
        return f"this machine measures {CPU_KIND!r} targets, not {spec.kind!r}"
    if spec.model != machine.model:
        return f"the target is a {spec.model!r}, this machine a {machine.model!r}"
    if spec.triple.partition("-")[0] != machine.triple.partition("-")[0]:
        return f"the target's code is for {spec.triple}, this machine is {machine.triple}"
    if spec.cores > machine.cores:
        return f"the target uses {spec.cores} cores, this machine offers {machine.cores}"
    own = spec.mcpu == machine.mcpu and set(machine.mattr) <= set(spec.mattr)
    if not own and spec.mcpu not in machine.runnable:
        return f"code for {spec.mcpu!r} does not run on this machine ({machine.mcpu})"
    lacking = [item for item in spec.mattr if item[0] == "+" and item[1:] not in machine.features]
    return f"this machine lacks {lacking[0][1:]!r}" if lacking else None


def calibrate(template: Template, spec: TargetSpec, machine: Machine) -> Attributes:
    """Measure what this machine reaches under a target (some seconds, alone on the device); see the operation.

    Raises ChildFailed or ChildError when it cannot be measured.
    """
    own_bits = _number(machine, "vector_bits", 128.0)
    payload = {
        "target": spec.to_json(),
        "vector_bits": int(min(LEVEL_BITS.get(spec.mcpu, own_bits), own_bits)),
        "last_cache_bytes": int(_number(machine, "last_cache_bytes", 0.0)),
    }
    with template.spawn("calibrate") as child:
        found = child.call(CALIBRATE, payload, CALIBRATE_S)
    return {name: HardwareAttribute(float(value), Origin.CALIBRATED) for name, value in found.items()}


def _number(machine: Machine, name: str, otherwise: float) -> float:
    """A detected attribute; containers hide some of them."""
    return float(machine.attributes[name].value) if name in machine.attributes else otherwise
