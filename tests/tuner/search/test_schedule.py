"""Traces in and out: stable, replayable anywhere, and refused when they are damaged."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from crosstune.tuner.contracts import TargetSpec, TraceJson
from crosstune.tuner.drafts import Space
from crosstune.tuner.tvm_adapter.schedule import (
    ReplayFailed,
    check_trace,
    load_module,
    module_sha256,
    readable,
    replay,
    schedule_sha256,
    scheduled_module,
    trace_json,
)
from crosstune.tuner.tvm_adapter.search import design_spaces

FRESH_PROCESS = """
import json, sys
from crosstune.tuner.tvm_adapter.preload import preload
preload()
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.schedule import module_sha256, schedule_sha256, scheduled_module
from crosstune.tuner.tvm_adapter.target import tvm_target
request = json.load(sys.stdin)
target = tvm_target(TargetSpec.from_json(request["target"]))
answer = [
    [schedule_sha256(trace), module_sha256(scheduled_module(module, trace, target))]
    for module, trace in request["candidates"]
]
print(json.dumps(answer))
"""


def hashes_in_a_fresh_process(candidates: list[tuple[str, TraceJson]], target: TargetSpec) -> list[list[str]]:
    """[schedule_sha256, module_sha256] of each candidate, computed in another process with other hash seeds."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS],
        input=json.dumps({"target": target.to_json(), "candidates": candidates}),
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def drawn_trace(module: str, target: Any, seed: int) -> TraceJson:
    spaces, _ = design_spaces(module, target)
    random = Random(seed)
    space = random.choice(spaces)
    return trace_json(replay(load_module(module), space.trace(space.draw(random)), strict=False, seed=seed + 1))


@pytest.fixture(scope="module")
def module(kernels: dict[str, Callable[..., str]]) -> str:
    return kernels["conv2d"](8, 16, 32)


@pytest.fixture(scope="module")
def trace(module: str, target: Any) -> TraceJson:
    return drawn_trace(module, target, 3)


def test_a_stored_trace_gives_the_same_program_in_another_process(
    kernels: dict[str, Callable[..., str]], target: Any, target_spec: TargetSpec
) -> None:
    modules = [kernels["matmul"](16, 16, 16), kernels["conv2d"](8, 8, 16), kernels["softmax"](8, 32)]
    candidates = [(each, drawn_trace(each, target, seed)) for each in modules for seed in range(3)]
    here = [
        [schedule_sha256(trace), module_sha256(scheduled_module(module, trace, target))] for module, trace in candidates
    ]
    assert hashes_in_a_fresh_process(candidates, target_spec) == here


def test_a_trace_survives_json_and_replay_unchanged(module: str, target: Any) -> None:
    for seed in range(10):
        trace = drawn_trace(module, target, seed)
        assert json.loads(json.dumps(trace)) == trace
        assert trace_json(replay(load_module(module), trace)) == trace


def test_programs_that_differ_in_names_only_have_one_hash(module: str, target: Any, trace: TraceJson) -> None:
    renamed = module.replace("conv2d_nhwc", "something_else")
    assert renamed != module
    theirs = json.loads(json.dumps(trace).replace("conv2d_nhwc", "something_else"))
    assert module_sha256(scheduled_module(renamed, theirs, target)) == module_sha256(
        scheduled_module(module, trace, target)
    )


def test_another_tile_gives_another_program(module: str, target: Any) -> None:
    hashes = {module_sha256(scheduled_module(module, drawn_trace(module, target, seed), target)) for seed in range(6)}
    assert len(hashes) > 3


def test_people_can_read_a_trace(module: str, trace: TraceJson) -> None:
    assert "sch.sample_perfect_tile" in readable(trace, module)


def first(trace: TraceJson, name: str) -> int:
    return next(index for index, instruction in enumerate(trace[0]) if instruction[0] == name)


def with_tile(trace: TraceJson, change: Callable[[list[int]], list[int]]) -> None:
    tiles = [entry for entry in trace[1] if isinstance(entry[1], list) and max(entry[1]) > 1]
    tiles[0][1] = change(tiles[0][1])


def swap_outputs(trace: TraceJson) -> None:
    splits = [instruction for instruction in trace[0] if instruction[0] == "Split"]
    splits[1][1][0], splits[-1][1][0] = splits[-1][1][0], splits[1][1][0]


DAMAGES: dict[str, Callable[[TraceJson], Any]] = {
    "wrong product": lambda trace: with_tile(trace, lambda tile: [*tile[:-1], tile[-1] * 3]),
    "zero": lambda trace: with_tile(trace, lambda tile: [0, *tile[1:]]),
    "negative": lambda trace: with_tile(trace, lambda tile: [-factor for factor in tile]),
    "huge": lambda trace: with_tile(trace, lambda tile: [*tile[:-1], 10**17]),
    "large": lambda trace: with_tile(trace, lambda tile: [*tile[:-1], 2**31 - 1]),
    "one factor missing": lambda trace: with_tile(trace, lambda tile: tile[1:]),
    "swapped loops": swap_outputs,
    "reorder loses a loop": lambda trace: trace[0][first(trace, "Reorder")][1].__setitem__(1, "l9999"),
    "unknown instruction": lambda trace: trace[0][first(trace, "Split")].__setitem__(0, "Frobnicate"),
    "unknown block": lambda trace: trace[0][first(trace, "GetSBlock")][2].__setitem__(0, "nowhere"),
    "no inputs": lambda trace: trace[0][first(trace, "Split")].__setitem__(1, []),
    "place out of range": lambda trace: trace[1].append([first(trace, "SampleComputeLocation"), 99]),
    "category out of range": lambda trace: trace[1].append([first(trace, "SampleCategorical"), 99]),
    "decision for nothing": lambda trace: trace[1].append([len(trace[0]), [1, 1]]),
    "an instruction is a number": lambda trace: trace[0].__setitem__(3, 17),
    "foreign code": lambda trace: trace[0].append(["Annotate", ["b0", '"int x;"'], ["pragma_import_c"], []]),
    "unsafe": lambda trace: trace[0].append(["UnsafeSetDType", ["b0"], [0, "float16"], []]),
    "no trace": lambda trace: trace.clear(),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=list(DAMAGES))
def test_a_damaged_trace_is_refused(module: str, target: Any, trace: TraceJson, damage: str) -> None:
    broken = copy.deepcopy(trace)
    DAMAGES[damage](broken)
    with pytest.raises(ReplayFailed):
        scheduled_module(module, broken, target)


def test_a_trace_of_another_workload_is_refused(
    kernels: dict[str, Callable[..., str]], module: str, target: Any
) -> None:
    with pytest.raises(ReplayFailed):
        scheduled_module(module, drawn_trace(kernels["matmul"](16, 16, 16), target, 1), target)


def test_checking_alone_accepts_what_tvm_generates(module: str, target: Any) -> None:
    for space in design_spaces(module, target)[0]:
        check_trace(space.trace(space.draw(Random(1))))
        assert isinstance(space, Space)
