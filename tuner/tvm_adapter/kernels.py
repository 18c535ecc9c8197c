"""Small fixed kernels that say what a machine can do, and whether it is left alone: written once, never searched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import te
from tvm.s_tir import Schedule

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.compile import Kernel, compile_module
from crosstune.tuner.tvm_adapter.target import tvm_target

FLOAT = "float32"
TILE_ROWS = 6
TILE_VECTORS = 2
"""6 x 2 accumulators: enough to hide the latency of a multiply-add, few enough for 16 registers."""
TILE_DEPTH = 256
"""Both operands of a tile (24 kB with AVX2) stay in the first-level cache."""
MATMUL_SIZE = 384


@dataclass(frozen=True, slots=True)
class FixedKernel:
    """A compiled kernel with its arguments (outputs last) and what one call does."""

    kernel: Kernel
    args: tuple[tuple[str, tuple[int, ...]], ...]
    flops: float
    bytes_moved: float


def multiply_add_tiles(spec: TargetSpec, vector_bytes: int, tiles_per_core: int) -> FixedKernel:
    """Register tiles of a matrix product over the same cached operands: close to the arithmetic peak."""
    tiles, width = spec.cores * tiles_per_core, TILE_VECTORS * vector_bytes // 4
    left = te.placeholder((TILE_DEPTH, TILE_ROWS), FLOAT, name="left")
    right = te.placeholder((TILE_DEPTH, width), FLOAT, name="right")
    depth = te.reduce_axis((0, TILE_DEPTH), name="depth")
    out = te.compute(
        (tiles, TILE_ROWS, width), lambda t, i, j: te.sum(left[depth, i] * right[depth, j], axis=depth), name="tile"
    )

    def schedule(made: Schedule) -> None:
        block = made.get_sblock("tile")
        cached = made.cache_write(block, 0, "global")
        tile, row, column, step = made.get_loops(block)
        made.reorder(tile, step, row, column)
        made.parallel(tile)
        made.unroll(row)
        made.vectorize(column)
        made.reverse_compute_at(cached, tile)
        made.vectorize(made.get_loops(cached)[-1])
        made.decompose_reduction(block, step)
        initial = made.get_sblock("tile_init")
        made.vectorize(made.get_loops(initial)[-1])
        made.unroll(made.get_loops(initial)[-2])
        made.annotate(tile, "pragma_auto_unroll_max_step", TILE_ROWS)
        made.annotate(tile, "pragma_unroll_explicit", 1)

    args = ((FLOAT, (TILE_DEPTH, TILE_ROWS)), (FLOAT, (TILE_DEPTH, width)), (FLOAT, (tiles, TILE_ROWS, width)))
    flops = 2.0 * tiles * TILE_ROWS * width * TILE_DEPTH
    return FixedKernel(_compiled([left, right, out], schedule, spec), args, flops, 0.0)


def triad(spec: TargetSpec, elements: int) -> FixedKernel:
    """`a + 3 b` over arrays far larger than the caches: memory bandwidth (as in McCalpin's STREAM)."""
    first = te.placeholder((elements,), FLOAT, name="first")
    second = te.placeholder((elements,), FLOAT, name="second")
    out = te.compute((elements,), lambda i: first[i] + second[i] * tvm.tirx.const(3, FLOAT), name="triad")

    def schedule(made: Schedule) -> None:
        (loop,) = made.get_loops(made.get_sblock("triad"))
        outer, _, inner = made.split(loop, [spec.cores, None, 16])
        made.parallel(outer)
        made.vectorize(inner)

    args = ((FLOAT, (elements,)),) * 3
    return FixedKernel(_compiled([first, second, out], schedule, spec), args, 2.0 * elements, 12.0 * elements)


def empty_parallel_loop(spec: TargetSpec) -> FixedKernel:
    """A parallel loop with next to nothing in it: what starting and joining the threads costs."""
    source = te.placeholder((spec.cores, 16), FLOAT, name="source")
    out = te.compute((spec.cores, 16), lambda i, j: source[i, j] + tvm.tirx.const(1, FLOAT), name="next")

    def schedule(made: Schedule) -> None:
        outer, inner = made.get_loops(made.get_sblock("next"))
        made.parallel(outer)
        made.vectorize(inner)

    args = ((FLOAT, (spec.cores, 16)),) * 2
    return FixedKernel(_compiled([source, out], schedule, spec), args, 0.0, 0.0)


def reference_matmul(spec: TargetSpec) -> FixedKernel:
    """A parallel matrix product of about a millisecond: needs the processors, the caches and the threads at once."""
    size = MATMUL_SIZE
    left = te.placeholder((size, size), FLOAT, name="left")
    right = te.placeholder((size, size), FLOAT, name="right")
    depth = te.reduce_axis((0, size), name="depth")
    out = te.compute((size, size), lambda i, j: te.sum(left[i, depth] * right[depth, j], axis=depth), name="product")

    def schedule(made: Schedule) -> None:
        block = made.get_sblock("product")
        cached = made.cache_write(block, 0, "global")
        row, column, step = made.get_loops(block)
        rows, row_in = made.split(row, [None, TILE_ROWS])
        columns, column_in = made.split(column, [None, 16])
        steps, step_in = made.split(step, [None, 4])
        made.reorder(rows, columns, steps, step_in, row_in, column_in)
        tile = made.fuse(rows, columns)
        made.parallel(tile)
        made.reverse_compute_at(cached, tile)
        made.vectorize(made.get_loops(cached)[-1])
        made.unroll(row_in)
        made.unroll(step_in)
        made.vectorize(column_in)
        made.decompose_reduction(block, steps)
        initial = made.get_sblock("product_init")
        made.vectorize(made.get_loops(initial)[-1])

    args = ((FLOAT, (size, size)),) * 3
    return FixedKernel(_compiled([left, right, out], schedule, spec), args, 2.0 * size**3, 12.0 * size**2)


def _compiled(arguments: list[Any], schedule: Callable[[Schedule], None], spec: TargetSpec) -> Kernel:
    function = te.create_prim_func(arguments).with_attr("global_symbol", "main")
    made = Schedule(tvm.IRModule({"main": function}))
    schedule(made)
    return compile_module(made.mod, tvm_target(spec))
