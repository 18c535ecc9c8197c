"""What a default schedule must know of the blocks of a PrimFunc: iterators, accesses, cost of the body."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm.s_tir import Schedule
from tvm.sym import detect_linear_equation

CONDITIONAL = re.compile(r"T\.(if_then_else|Select)\(")
EXPENSIVE = re.compile(r"T\.(exp\w*|log\w*|tanh?|sinh?|cosh?|erf|sigmoid|pow\w*|sqrt|rsqrt|a\w+h?|call_\w+)\(")
ITERATOR_KINDS = {0: "S", 2: "R"}


@dataclass(frozen=True, slots=True)
class Block:
    """One leaf block. `kinds` has a letter per iterator: S spatial, R reduction, `?` anything else."""

    handle: Any
    name: str
    statement: Any
    kinds: str
    extents: tuple[int, ...]
    initialised: bool
    conditional: bool
    expensive: bool

    @property
    def injective(self) -> bool:
        return not self.initialised and set(self.kinds) <= {"S"}

    @property
    def reduction(self) -> bool:
        return self.initialised and "R" in self.kinds and "?" not in self.kinds

    @property
    def work(self) -> int:
        """Scalar operations, roughly."""
        return math.prod(self.extents) * (8 if self.expensive else 1)

    @property
    def itemsize(self) -> int:
        """Bytes of one element written."""
        return max(1, int(self.statement.writes[0].source.dtype.bits) // 8)

    @property
    def leading_spatial(self) -> tuple[int, ...]:
        """Extents of the spatial iterators before the first reduction."""
        count = len(self.kinds) - len(self.kinds.lstrip("S"))
        return self.extents[:count]

    def write_stride(self, axis: int) -> int | None:
        return stride(self.statement.writes[0], self.statement.iter_vars[axis].var)

    def read_strides(self, axis: int) -> list[int | None]:
        """Elements between neighbours of iterator `axis`, per buffer read; None where it is not linear."""
        written = [region.source for region in self.statement.writes]
        return [
            stride(region, self.statement.iter_vars[axis].var)
            for region in self.statement.reads
            if not any(region.source.same_as(buffer) for buffer in written)
        ]

    def vectorisable(self, axis: int) -> bool:
        """True when neighbours of `axis` are neighbours in every buffer read, or the same element."""
        return all(found in {0, 1} for found in self.read_strides(axis))

    def flat(self) -> bool:
        """True when every buffer is walked in the same order from end to end, so that all loops are one."""
        regions = [*self.statement.reads, *self.statement.writes]
        axes = range(len(self.kinds))
        first = [self.write_stride(axis) for axis in axes]
        return all(
            [stride(region, self.statement.iter_vars[axis].var) for axis in axes] in (first, [0] * len(first))
            and (math.prod(int(size) for size in region.source.shape) in {1, math.prod(self.extents)})
            for region in regions
        )


def stride(region: Any, variable: Any) -> int | None:
    """Elements of the region's buffer that one step of `variable` moves; None when it is not linear in it."""
    total, step = 0, 1
    for size, index in zip(reversed(region.source.shape), reversed(region.region), strict=True):
        coefficients = detect_linear_equation(index.min, [variable])
        if len(coefficients) != 2 or not hasattr(coefficients[0], "value"):
            return None
        total += int(coefficients[0].value) * step
        step *= int(size)
    return total


def blocks_of(schedule: Schedule) -> list[Block]:
    """The leaf blocks in program order."""
    root = schedule.get_sblock("root")
    return [_block(schedule, handle) for handle in schedule.get_child_blocks(root)]


def _block(schedule: Schedule, handle: Any) -> Block:
    statement = schedule.get(handle)
    text = str(statement)
    return Block(
        handle=handle,
        name=str(statement.name_hint),
        statement=statement,
        kinds="".join(ITERATOR_KINDS.get(int(iterator.iter_type), "?") for iterator in statement.iter_vars),
        extents=tuple(int(iterator.dom.extent) for iterator in statement.iter_vars),
        initialised=statement.init is not None,
        conditional=bool(CONDITIONAL.search(text)),
        expensive=bool(EXPENSIVE.search(text)),
    )


def loops_by_iterator(schedule: Schedule, block: Block) -> dict[int, Any]:
    """Iterator position -> the loop that drives it, for iterators that are one loop's variable and nothing else."""
    loops = schedule.get_loops(block.handle)
    values = _realize(schedule, block.handle).iter_values
    variables = [schedule.get(loop).loop_var for loop in loops]
    found = {}
    for position, value in enumerate(values):
        for loop, variable in zip(loops, variables, strict=True):
            if variable.same_as(value):
                found[position] = loop
    return found


_realize = tvm_ffi.get_global_func("s_tir.schedule.GetSBlockRealize")


def extents_of(schedule: Schedule, loops: Sequence[Any]) -> list[int]:
    return [int(schedule.get(loop).extent) for loop in loops]


def best_divisor(extent: int, lanes: int, limit: int) -> int:
    """The tile of a loop of `extent` that fills vectors of `lanes` best and is at most `limit` (>= lanes).

    The largest divisor that is a multiple of `lanes`, else of half and a quarter; then any divisor that is at least a
    quarter vector long (LLVM pads odd vectors); 1 when there is none.
    """
    for step in (lanes, lanes // 2, lanes // 4):
        if step > 1:
            fitting = [size for size in range(step, min(limit, extent) + 1, step) if extent % size == 0]
            if fitting:
                return fitting[-1]
    odd = [size for size in range(max(3, lanes // 4), min(limit, extent) + 1) if extent % size == 0]
    return odd[-1] if odd else 1
