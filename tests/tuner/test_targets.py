"""What this machine is, which targets it stands for, and which descriptions are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crosstune.tuner import hardware, targets
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import TargetRefused, TargetSpec
from crosstune.tuner.hardware import HardwareAttribute, Origin
from crosstune.tuner.targets import Machine


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with Template.start() as started:
        yield started


@pytest.fixture(scope="module")
def machine(template: Template) -> Machine:
    return targets.detect_machine(template)


def test_this_machine_is_described(machine: Machine) -> None:
    assert machine.cores == hardware.usable_cores() <= len(os.sched_getaffinity(0))
    assert (machine.model and machine.mcpu in machine.runnable) or machine.missing
    assert machine.triple.count("-") == 2
    attributes = machine.attributes
    assert {"vendor", "model", "cores", "l1d_bytes", "l2_bytes", "memory_bytes", "vector_bits"} <= set(attributes)
    assert all(each.origin is Origin.DETECTED for each in attributes.values())
    assert float(attributes["l1d_bytes"].value) < float(attributes["last_cache_bytes"].value)
    assert HardwareAttribute.from_json(attributes["vendor"].to_json()) == attributes["vendor"]


def test_one_machine_stands_for_several_targets_that_it_can_measure(template: Template, machine: Machine) -> None:
    found = targets.variants(machine)
    assert found[0] == targets.native(machine)
    assert len({spec.identity for spec in found}) == len(found) >= 2
    assert len({targets.default_name(spec) for spec in found}) == len(found)
    for spec in found:
        targets.validate(spec, template)
        assert targets.can_measure(spec, machine) is None


def test_a_virtual_machine_that_hides_features_tells_the_compiler(machine: Machine) -> None:
    others = [each for each in machine.runnable if each != machine.mcpu]
    hiding = replace(machine, missing=("avx512f",), runnable=type(machine.runnable)(others))
    spec = targets.native(hiding)
    assert spec.mattr == ("-avx512f",)
    assert targets.can_measure(spec, hiding) is None
    assert targets.can_measure(replace(spec, mattr=()), hiding) is not None


@pytest.mark.parametrize(
    ("model_name", "family", "expected"),
    [
        ("AMD EPYC 7713 64-Core Processor", "25", "AMD EPYC 7713"),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "6", "Intel Xeon Platinum 8375C"),
        ("AMD EPYC", "25", "AMD EPYC family 25 model 1"),
    ],
)
def test_silicon_is_told_apart_by_model(model_name: str, family: str, expected: str) -> None:
    assert hardware.model({"model name": model_name, "cpu family": family, "model": "1"}) == expected


def test_a_description_becomes_a_target(template: Template) -> None:
    value = {"mcpu": "znver3", "cores": 64, "model": "AMD EPYC 7713", "mattr": ["+avx2"], "triple": "x86_64-linux-gnu"}
    spec = targets.parse(value)
    targets.validate(spec, template)  # more cores than this machine has: to be measured elsewhere
    assert spec == TargetSpec("llvm", "znver3", 64, "AMD EPYC 7713", ("+avx2",), "x86_64-linux-gnu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cores": None}, "'cores', the number of threads.*an example"),
        ({"cores": 0}, "'cores' is 0.*an example"),
        ({"cores": True}, "'cores'"),
        ({"model": " "}, "'model'"),
        ({"mcpu": "znver33"}, "did you mean 'znver3'"),
        ({"mcpu": "; rm -rf"}, "not a processor"),
        ({"kind": "cuda"}, "use 'llvm'"),
        ({"mattr": ["avx2"]}, "a sign"),
        ({"mattr": "+avx2"}, "a list"),
        ({"triple": "x86_64-conda-linux-gnu"}, "architecture-system-abi"),
        ({"triple": "vax-linux-gnu"}, "cannot compile"),
        ({"core": 2}, "no field 'core'"),
    ],
)
def test_a_wrong_description_is_refused_with_what_would_be_right(
    template: Template, change: dict[str, object], words: str
) -> None:
    value = {"kind": "llvm", "mcpu": "znver3", "cores": 2, "model": "AMD EPYC 7713", "triple": "x86_64-linux-gnu"}
    with pytest.raises(TargetRefused, match=words):
        targets.validate(targets.parse(value | change), template)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "Intel Xeon 1"}, "this machine a"),
        ({"cores": 4096}, "this machine offers"),
        ({"mcpu": "sapphirerapids"}, "does not run|sapphirerapids"),
        ({"triple": "aarch64-linux-gnu"}, "this machine is"),
        ({"kind": "cuda"}, "not 'cuda'"),
        ({"mattr": ("+amx-tile-of-the-future",)}, "lacks"),
    ],
)
def test_what_cannot_be_measured_here_has_a_reason(machine: Machine, change: dict[str, object], words: str) -> None:
    import re

    spec = replace(targets.native(replace(machine, runnable=("x86-64-v2",))), **change)  # type: ignore[arg-type]
    reason = targets.can_measure(spec, machine)
    if "sapphirerapids" in machine.runnable and change.get("mcpu") == "sapphirerapids":
        pytest.skip("this machine is at least that processor")
    assert reason is not None and re.search(words, reason)


def test_a_calibration_measures_peak_bandwidth_and_threads(template: Template, machine: Machine) -> None:
    spec = targets.native(machine)
    found = targets.calibrate(template, spec, machine)
    assert set(found) == {"peak_flops_per_s", "memory_bytes_per_s", "parallel_loop_s", "reference_kernels_s"}
    assert all(each.origin is Origin.CALIBRATED and float(each.value) > 0 for each in found.values())
    assert float(found["peak_flops_per_s"].value) > 1e9
    assert float(found["memory_bytes_per_s"].value) > 1e8
