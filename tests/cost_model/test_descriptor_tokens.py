"""Hardware, workload and evidence tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens.evidence import SCHEDULE_DISTANCE, SPEED, evidence
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH, UNITS, distance, hardware_token
from crosstune.cost_model.tokens.schedule import tokens
from crosstune.cost_model.tokens.vocabulary import Kind, Step
from crosstune.cost_model.tokens.workload import workload_token


def target(**fields: object) -> str:
    return json.dumps({"kind": "llvm", **fields}, sort_keys=True)


def known(token: np.ndarray, name: str) -> bool:
    return bool(token[1 + len(UNITS) + list(UNITS).index(name)])


def test_what_is_not_known_of_hardware_is_marked_so() -> None:
    nothing = hardware_token(target())
    assert nothing.shape == (HARDWARE_WIDTH,) and not nothing.any()
    zen = hardware_token(target(mcpu="znver3", cores=2))
    assert known(zen, "vector_bits") and known(zen, "cores") and not known(zen, "memory_bytes_per_s")
    assert hardware_token(target(), "platinum-8272")[1 + len(UNITS) :].sum() > zen[1 + len(UNITS) :].sum()


def test_attributes_of_a_target_outweigh_the_table() -> None:
    told = hardware_token(target(model="platinum-8272", attributes={"peak_flops_per_s": 1e11}))
    place = 1 + list(UNITS).index("peak_flops_per_s")
    assert told[place] == 0.0 and hardware_token(target(model="platinum-8272"))[place] > 1.0


def test_the_nearest_hardware_is_the_most_alike() -> None:
    two, one = hardware_token(target(mcpu="znver3", cores=2)), hardware_token(target(mcpu="znver3", cores=1))
    other, gpu = hardware_token(target(mcpu="x86-64-v2", cores=1)), hardware_token(target(), "a100")
    assert distance(two, two) == 0.0
    assert distance(two, one) < distance(two, other) < distance(two, gpu)


def test_workloads_of_other_shapes_have_other_tokens() -> None:
    keys = [
        '["conv2d_layer", 1, 7, 7, 512, 512, 3, 3]',
        '["conv2d_layer", 1, 7, 7, 512, 256, 3, 3]',
        '["x", [1, 2], [3]]',
    ]
    found = [workload_token("", key) for key in keys]
    assert all(token[0] == 1.0 for token in found)
    assert len({token.tobytes() for token in found}) == 3


@pytest.mark.parametrize(("module", "key"), [("", "7fa3"), ("{}", ""), ("not JSON", ""), ('{"nodes": [1, 2]}', "")])
def test_a_workload_that_does_not_tell_its_shapes_is_unknown(module: str, key: str) -> None:
    assert not workload_token(module, key).any()


def group(name: str, latencies_s: list[float], factors: list[float]) -> Group:
    programs = [
        Program(f"p{factor}", tokens([Step(Kind.SPLIT, 0, (6.0, factor))]), None, latency_s)
        for latency_s, factor in zip(latencies_s, factors, strict=True)
    ]
    return Group("s", "", name, "w", hardware_token(name), workload_token("", ""), False, programs)


def test_evidence_is_how_the_most_similar_schedule_did_on_each_other_target() -> None:
    here = group(target(mcpu="znver3", cores=2), [1.0, 1.0], [1.0, 3.1])
    near = group(target(mcpu="znver3", cores=1), [4.0, 2.0], [1.0, 3.0])
    far = group(target(mcpu="x86-64-v2", cores=1), [1.0, 9.0], [1.0, 3.0])
    found, mask = evidence(here, [far, near])
    assert mask[:, :2].all() and not mask[:, 2:].any()
    assert found[:, 0, SPEED].tolist() == [0.5, 1.0]  # the nearest target comes first
    assert found[:, 1, SPEED] == pytest.approx([1.0, 1 / 9])
    assert found[0, 0, SCHEDULE_DISTANCE] == 0.0 < found[1, 0, SCHEDULE_DISTANCE]


def test_without_other_targets_there_is_no_evidence() -> None:
    _, mask = evidence(group(target(), [1.0, 2.0], [1.0, 2.0]), [])
    assert not mask.any()
