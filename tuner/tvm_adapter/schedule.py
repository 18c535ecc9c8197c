"""Schedules as plain values: workload module + trace -> scheduled program, the same in every process.

A trace is stored without its post-processing, as `[instructions, decisions]`. To get its program anywhere: replay it
on the workload's module, then run the default post-processors of the target. A trace may come from a file that
somebody sent, so it is checked before TVM sees it, and TVM must give back the very trace that went in: TVM repairs
impossible decisions silently (a tile that does not divide its loop becomes one that does), which would file a
measurement under the wrong schedule.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

import tvm_ffi
from tvm.ir import IRModule, load_json
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule import TuneContext
from tvm.s_tir.schedule import Trace
from tvm.s_tir.schedule import _ffi_api as trace_api
from tvm.target import Target

from crosstune.tuner.contracts import CrosstuneError, TraceJson, sha256_json

# fmt: off
INSTRUCTIONS = frozenset((
    "GetSBlock", "GetLoops", "GetChildBlocks", "GetProducers", "GetConsumers", "GetOutputBlocks",
    "SampleCategorical", "SamplePerfectTile", "SamplePartitionedTile", "SampleComputeLocation", "Merge",
    "Fuse", "Split", "Reorder", "ReorderBlockIterVar", "AddUnitLoop", "Parallel", "Vectorize", "Bind",
    "Unroll", "CacheRead", "CacheWrite", "CacheIndex", "ReindexCacheRead", "ReindexCacheWrite", "ReIndex",
    "ComputeAt", "ReverseComputeAt", "ComputeInline", "ReverseComputeInline", "FuseReductionEpilogue",
    "DecomposeReduction", "RFactor", "StorageAlign", "Blockize", "PadEinsum", "DecomposePadding", "Annotate",
    "Unannotate",
))
# fmt: on
"""What a trace may do: all of these keep the program's meaning and its interface. Left out on purpose: UnsafeSetDType,
UnsafeHideBufferAccess, SetScope, TransformLayout (changes arguments), Tensorize, EnterPostproc."""

ANNOTATIONS = re.compile(
    r"meta_schedule\.(tiling_structure|parallel|vectorize|unroll_explicit|unroll_implicit|random_compute_producer"
    r"|auto_tensorize|auto_tensorize_init|cooperative_fetch|thread_extent_(low|high)_inclusive)"
    r"|pragma_auto_unroll_max_step|pragma_unroll_explicit"
)
"""Keys that an Annotate may use; others bring foreign code in (`pragma_import_llvm`, `pragma_import_c`) or let the
builder drop a block (`meta_schedule.layout_rewrite_preproc`)."""

MAX_ITEMS = 20_000
MAX_INTEGER = 2**31 - 1
SAMPLES_OF_TILES = frozenset({"SamplePerfectTile", "SamplePartitionedTile"})


class ReplayFailed(CrosstuneError):
    """A trace that has no program for this workload and target; the text says why."""


@lru_cache(maxsize=2)
def load_module(module_json: str) -> IRModule:
    """The workload's IRModule; the last ones are kept, since a child works on one workload at a time."""
    return load_json(module_json)


def trace_json(schedule: Schedule) -> TraceJson:
    """The simplified trace of `schedule`, cut before EnterPostproc, as plain JSON."""
    return trace_to_json(schedule.trace)


def trace_to_json(trace: Trace) -> TraceJson:
    value: TraceJson = _plain(trace_api.TraceAsJSON(trace.simplified(True), True))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tvm_ffi.Array):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, tvm_ffi.Map):
        return {str(key): _plain(item) for key, item in value.items()}
    return _plain(value.value)  # IntImm, FloatImm


def schedule_sha256(trace: TraceJson) -> str:
    """The schedule's identity (hex): over the trace only, so it means something beside a workload."""
    return sha256_json(trace)


def module_sha256(module: IRModule) -> str:
    """Identity (hex) of a scheduled program, equal for programs that differ in names only.

    It spreads TVM's 64-bit structural hash: fast (0.1 ms), equal in every process of one TVM version, and a
    collision costs one measurement that is not made, so 64 bits are enough.
    """
    return hashlib.sha256(f"structural:{tvm_ffi.structural_hash(module) & (2**64 - 1):016x}".encode()).hexdigest()


def readable(trace: TraceJson, module_json: str) -> str:
    """The trace as the Python statements that would make the same schedule, for people."""
    return str(replay(load_module(module_json), trace).trace.simplified(True))


def scheduled_module(module_json: str, trace: TraceJson, target: Target) -> IRModule:
    """The program of a trace: replayed, then post-processed as `target` asks.

    Raises ReplayFailed when the trace is damaged, does not fit the workload, or a post-processor refuses it.
    """
    schedule = replay(load_module(module_json), trace)
    postprocess(schedule, module_json, target)
    return schedule.mod


def replay(module: IRModule, trace: TraceJson, *, strict: bool = True, seed: int = 1) -> Schedule:
    """The schedule that `trace` makes of `module`, without post-processing.

    `strict` refuses a trace that TVM had to repair; without it (a draft, a trace of a near workload or another
    target) read the new trace from the result; open decisions are drawn from `seed`. Raises ReplayFailed.
    """
    check_trace(trace)
    schedule = new_schedule(module, seed)
    try:
        Trace.apply_json_to_schedule(trace, schedule)
    except Exception as error:
        raise ReplayFailed(f"the trace does not fit the workload: {_last_line(error)}") from error
    if strict and trace_json(schedule) != trace:
        raise ReplayFailed("the trace is damaged: TVM had to change its decisions to make a program of it")
    return schedule


def new_schedule(module: IRModule, seed: int) -> Schedule:
    """`seed`: 1 to 2**31 - 1. Fast checks and short errors: the detailed ones print the whole module each time."""
    return Schedule(module, seed=seed, debug_mask="none", error_render_level="fast")


def postprocess(schedule: Schedule, module_json: str, target: Target) -> None:
    """Run the target's default post-processors on `schedule`; raises ReplayFailed, naming the one that refuses."""
    schedule.enter_postproc()
    for processor in _postprocessors(module_json, target):
        name = type(processor).__name__
        try:
            accepted = processor.apply(schedule)
        except Exception as error:
            raise ReplayFailed(f"{name} failed: {_last_line(error)}") from error
        if not accepted:
            raise ReplayFailed(f"{name} refuses the schedule")


@lru_cache(maxsize=4)
def _postprocessors(module_json: str, target: Target) -> list[Any]:
    context = TuneContext(
        load_module(module_json), target=target, space_generator="post-order-apply", num_threads=1, rand_state=1
    )
    return list(context.space_generator.postprocs)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def check_trace(trace: Any) -> None:
    """Raise ReplayFailed unless `trace` is small, well formed, and made of harmless instructions only."""
    if not (isinstance(trace, list) and len(trace) == 2 and all(isinstance(part, list) for part in trace)):
        raise ReplayFailed("a trace is [instructions, decisions]")
    instructions, decisions = trace
    if len(instructions) + len(decisions) > MAX_ITEMS:
        raise ReplayFailed(f"the trace has more than {MAX_ITEMS} instructions")
    for instruction in instructions:
        _check_instruction(instruction)
    decided = -1
    for decision in decisions:
        if not (isinstance(decision, list) and len(decision) == 2 and type(decision[0]) is int):
            raise ReplayFailed("a decision is [index of its instruction, value]")
        index, value = decision
        if not decided < index < len(instructions):
            raise ReplayFailed(f"decision for instruction {index} is out of order or out of range")
        decided = index
        _check_decision(instructions[index], value)


def _check_instruction(instruction: Any) -> None:
    if not (
        isinstance(instruction, list)
        and len(instruction) == 4
        and isinstance(instruction[0], str)
        and all(isinstance(part, list) for part in instruction[1:])
    ):
        raise ReplayFailed("an instruction is [name, inputs, attributes, outputs]")
    name, inputs, attributes, outputs = instruction
    if name not in INSTRUCTIONS:
        raise ReplayFailed(f"instruction {name!r} is not one that a stored trace may use")
    if name in {"Annotate", "Unannotate"} and not (
        attributes and isinstance(attributes[0], str) and ANNOTATIONS.fullmatch(attributes[0])
    ):
        raise ReplayFailed(f"annotation {attributes[:1]} is not one that a stored trace may use")
    _check_values([inputs, attributes, outputs], depth=0)


def _check_values(value: Any, depth: int) -> None:
    if isinstance(value, list):
        if depth > 6 or len(value) > MAX_ITEMS:
            raise ReplayFailed("the trace nests too deep or too wide")
        for item in value:
            _check_values(item, depth + 1)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ReplayFailed(f"{value} is too large for a loop")
    elif not isinstance(value, str | int | float | bool | None):
        raise ReplayFailed(f"a trace cannot hold a {type(value).__name__}")


def _check_decision(instruction: list[Any], value: Any) -> None:
    name, _, attributes, _ = instruction
    if name in SAMPLES_OF_TILES:
        # A zero would make TVM divide by it, which ends the process.
        good = isinstance(value, list) and all(type(item) is int and 1 <= item <= MAX_INTEGER for item in value)
        good = good and len(value) >= 2
    elif name == "SampleCategorical":
        candidates = attributes[0] if attributes else None
        good = type(value) is int and isinstance(candidates, list) and 0 <= value < len(candidates)
    elif name == "SampleComputeLocation":
        good = type(value) is int and -2 <= value <= MAX_ITEMS
    else:
        good = False
    if not good:
        raise ReplayFailed(f"{value!r:.100} is no decision of {name}")
