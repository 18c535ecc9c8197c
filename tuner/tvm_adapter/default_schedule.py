"""A default schedule for any PrimFunc: fused, parallel, vectorised, chosen without measuring anything.

It is what an untuned task runs with and what tuning is measured against, so it is meant to be decent: reductions with
a vectorisable output axis (convolutions, matmuls, pooling) accumulate a small tile in registers, reductions along the
contiguous axis are split into vector lanes, row-wise operators (softmax, layer norm) run row by row. Each step is
tried on a copy and left out where TVM's rules refuse it, so every PrimFunc gets some default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import tvm_ffi
from tvm.ir import IRModule
from tvm.s_tir import SBlockRealize, Schedule
from tvm.target import Target

from crosstune.tuner.contracts import TraceJson
from crosstune.tuner.tvm_adapter.blocks import Block, best_divisor, blocks_of, extents_of, loops_by_iterator
from crosstune.tuner.tvm_adapter.schedule import (
    ReplayFailed,
    load_module,
    new_schedule,
    scheduled_module,
    trace_json,
)

ROWS = 4
"""Output rows of a register tile: each value loaded is used that often."""
VECTORS = 2
"""Vectors in each row of a register tile; ROWS x VECTORS = 8 accumulators hide the latency of a multiply-add."""
FALLBACK_VECTOR_BYTES = 32
PARALLEL_WORK = 16_384
"""Scalar operations below which starting the threads (a few microseconds) costs more than it brings."""
TASKS_PER_CORE = 8
"""Iterations of a parallel loop per core that even out the load."""

REFUSALS = (RuntimeError, ValueError, TypeError)
"""What TVM raises where a primitive does not apply (ScheduleError is a RuntimeError; TypeError: a symbolic extent)."""

Step = Callable[[Schedule], Any]


def default_module(module_json: str, target: Target) -> IRModule:
    """The workload's program under the default schedule, with the target's post-processing."""
    return scheduled_module(module_json, default_trace(module_json, target), target)


def default_trace(module_json: str, target: Target) -> TraceJson:
    """The default schedule as a trace, the same in every process; a plainer one where the better ones do not fit."""
    unscheduled = new_schedule(load_module(module_json), seed=1)
    if not _has_blocks(unscheduled):
        return trace_json(unscheduled)
    machine = _Machine(target)
    for recipe in (_inlined_then(machine.row_by_row), _inlined_then(machine.block_by_block), machine.plainly):
        try:
            schedule = recipe(unscheduled.copy())
        except REFUSALS:
            continue
        if schedule is not None and _usable(module_json, trace_json(schedule), target):
            return trace_json(schedule)
    return trace_json(unscheduled)


def _has_blocks(schedule: Schedule) -> bool:
    """False for a PrimFunc written as plain loops (scans, sorts): TVM can schedule nothing there."""
    body = schedule.mod["main"].body
    return isinstance(body, SBlockRealize) and str(body.block.name_hint) == "root"


def _usable(module_json: str, trace: TraceJson, target: Target) -> bool:
    try:
        scheduled_module(module_json, trace, target)
    except ReplayFailed:
        return False
    return True


def _tried(schedule: Schedule, step: Step) -> Schedule | None:
    """A copy of `schedule` with `step` done, or None when TVM refuses it."""
    trial = schedule.copy()
    try:
        step(trial)
    except REFUSALS:
        return None
    return trial


def _inlined_then(recipe: Callable[[Schedule], Schedule | None]) -> Callable[[Schedule], Schedule | None]:
    return lambda schedule: recipe(_inline(schedule))


def _inline(schedule: Schedule) -> Schedule:
    """Merge injective blocks into their readers, unless that repeats dear work or puts conditions into inner loops."""
    for name in [block.name for block in blocks_of(schedule)]:
        block = next((found for found in blocks_of(schedule) if found.name == name), None)
        if block is None or not block.injective:
            continue
        readers = [_named(schedule, handle) for handle in schedule.get_consumers(block.handle)]
        into_reduction = any(not reader.injective for reader in readers)
        repeats = block.expensive and (into_reduction or len(readers) > 1)
        if readers and not repeats and not (into_reduction and block.conditional):
            schedule = _tried(schedule, partial(Schedule.compute_inline, block=block.handle)) or schedule
    return schedule


def _outermost_parallel(schedule: Schedule, block: Block) -> None:
    schedule.parallel(schedule.get_loops(block.handle)[0])


def _named(schedule: Schedule, handle: Any) -> Block:
    name = str(schedule.get(handle).name_hint)
    return next(block for block in blocks_of(schedule) if block.name == name)


class _Machine:
    """The recipes, for the vector width and core count of one target."""

    def __init__(self, target: Target) -> None:
        self.vector_bytes = _vector_bytes(target)
        self.cores = int(target.attrs.get("num-cores", 1))

    # --- recipes: a scheduled copy, or None when they do not apply -------------------------------------------------

    def row_by_row(self, schedule: Schedule) -> Schedule | None:
        """All blocks inside one parallel loop over the axes that they share (softmax, layer norm, RMS norm)."""
        blocks = blocks_of(schedule)
        shared = _shared_leading(blocks)
        if len(blocks) < 2 or not shared or not blocks[-1].injective or all(block.injective for block in blocks):
            return None
        if any(block.reduction and self._tile_axis(block) is not None for block in blocks):
            return None
        work = sum(block.work for block in blocks)
        if work >= PARALLEL_WORK and math.prod(shared) < self.cores:
            return None
        for block in blocks:
            if block.reduction:
                schedule = _tried(schedule, partial(self._into_lanes, block=block)) or schedule
        return _tried(schedule, lambda trial: self._under_one_loop(trial, len(shared), parallel=work >= PARALLEL_WORK))

    def block_by_block(self, schedule: Schedule) -> Schedule:
        """Each block in a loop nest of its own, a reduction with its element-wise follower in its tile."""
        for block in blocks_of(schedule):
            if block.reduction and self._tile_axis(block) is None:
                schedule = _tried(schedule, partial(self._into_lanes, block=block)) or schedule
        done: set[str] = set()
        for name in [block.name for block in blocks_of(schedule)]:
            if name in done:
                continue
            block = next(found for found in blocks_of(schedule) if found.name == name)
            tile = self._tiled(block, done)
            tiled = _tried(schedule, tile) if tile else None
            schedule = tiled or _tried(schedule, partial(self._nest, block=block)) or schedule
        return schedule

    def plainly(self, schedule: Schedule) -> Schedule:
        """Only the outermost spatial loop of each block made parallel."""
        for block in blocks_of(schedule):
            if block.kinds.startswith("S") and block.work >= PARALLEL_WORK:
                schedule = _tried(schedule, partial(_outermost_parallel, block=block)) or schedule
        return schedule

    # --- steps ------------------------------------------------------------------------------------------------------

    def _lanes(self, block: Block) -> int:
        return max(1, self.vector_bytes // block.itemsize)

    def _tile_axis(self, block: Block) -> int | None:
        """The spatial iterator of a reduction that vectors can run along, or None."""
        for axis in reversed(range(len(block.kinds))):
            if block.kinds[axis] == "S" and block.extents[axis] > 1 and block.write_stride(axis) == 1:
                good = block.vectorisable(axis) and best_divisor(block.extents[axis], self._lanes(block), 10**9) > 1
                return axis if good else None
        return None

    def _tiled(self, block: Block, done: set[str]) -> Step | None:
        axis = self._tile_axis(block) if block.reduction else None
        if axis is None:
            return None

        def step(trial: Schedule) -> None:
            follower = _follower(trial, block)
            handle = follower.handle if follower else trial.cache_write(block.handle, 0, "global")
            self._tile(trial, block, axis)
            anchor = trial.get_loops(block.handle)[0]
            trial.reverse_compute_at(handle, anchor, preserve_unit_loops=True)
            if follower is None or follower.injective:
                self._vectorise(trial, handle, self._lanes(block))
            if follower:
                done.add(follower.name)

        return step

    def _tile(self, schedule: Schedule, block: Block, axis: int) -> None:
        """parallel outer, reductions, rows (unrolled), vectors: the tile's accumulators stay in registers."""
        loops = loops_by_iterator(schedule, block)
        if len(loops) != len(block.kinds):
            raise ValueError("an iterator is not driven by one loop")
        lanes = self._lanes(block)
        columns = best_divisor(block.extents[axis], lanes, VECTORS * lanes)
        row_axis = _row_axis(block, axis)
        rows = 1 if row_axis is None else _rows(block.extents[row_axis])
        outer, inner = [], []
        for position, loop in sorted(loops.items()):
            if block.kinds[position] == "R":
                continue
            size = columns if position == axis else rows if position == row_axis else 1
            if size > 1:
                outside, inside = schedule.split(loop, [None, size])
                outer.append(outside)
                inner.append((position == axis, inside))
            else:
                outer.append(loop)
        inner.sort(key=lambda pair: pair[0])  # the vector loop last
        reductions = [loop for position, loop in sorted(loops.items()) if block.kinds[position] == "R"]
        schedule.reorder(*outer, *reductions, *[loop for _, loop in inner])
        around = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
        if block.work >= PARALLEL_WORK:
            schedule.parallel(around)
        for is_vector, loop in inner:
            if is_vector:
                schedule.vectorize(loop)
            else:
                schedule.unroll(loop)

    def _into_lanes(self, schedule: Schedule, block: Block) -> None:
        """Split a reduction over contiguous memory into one partial result per vector lane (rfactor)."""
        axis = max(position for position, kind in enumerate(block.kinds) if kind == "R")
        lanes = best_divisor(block.extents[axis], self._lanes(block), self._lanes(block))
        if lanes < 4 or not block.vectorisable(axis) or lanes == block.extents[axis]:
            raise ValueError("nothing to gain")
        _, inside = schedule.split(loops_by_iterator(schedule, block)[axis], [None, lanes])
        schedule.rfactor(inside, factor_axis=len(block.statement.writes[0].region))

    def _nest(self, schedule: Schedule, block: Block) -> None:
        """Fuse the outer spatial loops of a block, make them parallel, vectorise the innermost where it pays."""
        if block.injective:
            self._vectorise(schedule, block.handle, self._lanes(block), flat=block.flat())
        if block.work < PARALLEL_WORK:
            return
        loops = schedule.get_loops(block.handle)
        candidates = takewhile(lambda loop: _is_serial(schedule, loop) and _is_spatial(schedule, loop), loops)
        outer, parts = [], 1
        for loop in candidates:
            if parts >= TASKS_PER_CORE * self.cores:
                break  # fusing more would only put divisions into the indices
            outer.append(loop)
            parts *= int(schedule.get(loop).extent)
        if outer:
            schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])

    def _vectorise(self, schedule: Schedule, handle: Any, lanes: int, *, flat: bool = False) -> None:
        loops = schedule.get_loops(handle)
        inner = [loop for loop in loops if _is_serial(schedule, loop)]
        if not inner:
            return
        extents = extents_of(schedule, inner)
        loop = inner[-1]
        if flat and best_divisor(extents[-1], lanes, lanes) < lanes and len(inner) == len(loops) > 1:
            loop = schedule.fuse(*inner)
        extent = int(schedule.get(loop).extent)
        size = best_divisor(extent, lanes, VECTORS * lanes)
        if size == 1:
            return
        vector = loop if size == extent else schedule.split(loop, [None, size])[1]
        schedule.vectorize(vector)

    def _under_one_loop(self, schedule: Schedule, shared: int, *, parallel: bool) -> None:
        blocks = blocks_of(schedule)
        outer = schedule.get_loops(blocks[-1].handle)[:shared]
        around = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
        for block in reversed(blocks[:-1]):
            schedule.compute_at(block.handle, around, preserve_unit_loops=True)
        if parallel:
            schedule.parallel(around)
        for block in blocks:
            axis = self._tile_axis(block)
            if block.injective:
                if len(schedule.get_loops(block.handle)) > 1:
                    self._vectorise(schedule, block.handle, self._lanes(block))
            elif axis is not None:
                loops = loops_by_iterator(schedule, block)
                reductions = [loops[position] for position, kind in enumerate(block.kinds) if kind == "R"]
                schedule.reorder(*reductions, loops[axis])
                schedule.vectorize(loops[axis])


def _vector_bytes(target: Target) -> int:
    from tvm.target.codegen import llvm_get_vector_width

    bits = int(llvm_get_vector_width(target))
    return bits // 8 if bits > 0 else FALLBACK_VECTOR_BYTES


def _shared_leading(blocks: Sequence[Block]) -> tuple[int, ...]:
    """Extents of the leading spatial axes that all blocks have in common."""
    shared: tuple[int, ...] = blocks[0].leading_spatial if blocks else ()
    for block in blocks[1:]:
        count = 0
        while count < min(len(shared), len(block.leading_spatial)) and shared[count] == block.leading_spatial[count]:
            count += 1
        shared = shared[:count]
    return shared


def _follower(schedule: Schedule, block: Block) -> Block | None:
    """The only reader of a block's result: computed in its tile, so that the result never goes to memory."""
    readers = schedule.get_consumers(block.handle)
    return _named(schedule, readers[0]) if len(readers) == 1 else None


def _row_axis(block: Block, vector_axis: int) -> int | None:
    """Another spatial axis along which some input is reused, the innermost one."""
    for axis in reversed(range(len(block.kinds))):
        reused = 0 in block.read_strides(axis)
        if axis != vector_axis and block.kinds[axis] == "S" and block.extents[axis] > 1 and reused:
            return axis
    return None


def _rows(extent: int) -> int:
    return max(size for size in range(1, ROWS + 1) if extent % size == 0)


def _is_serial(schedule: Schedule, loop: Any) -> bool:
    return int(schedule.get(loop).kind) == 0


def _is_spatial(schedule: Schedule, loop: Any) -> bool:
    return str(_iterator_type(schedule, loop)) == "S"


_iterator_type = tvm_ffi.get_global_func("s_tir.schedule.GetLoopIterType")
