"""One vocabulary of schedule primitives for Ansor's steps and MetaSchedule's instructions.

Kind               Ansor                     MetaSchedule
split              SP, FSP, FFSP             Split, LoopPartition
reorder            RE                        Reorder, ReorderBlockIterVar
fuse               FU                        Fuse, AddUnitLoop
unroll             AN 1, PR auto_unroll      Unroll, Annotate unroll_explicit | unroll_implicit
vectorize          AN 2                      Vectorize, Annotate vectorize
parallel           AN 3                      Parallel, Annotate parallel
bind_vthread       AN 4                      Bind vthread*
bind_block         AN 5, 7, 9                Bind blockIdx.*
bind_thread        AN 6, 8, 10               Bind threadIdx.*
tensorize          AN 11                     Tensorize, Blockize, Annotate auto_tensorize*
compute_at         CA                        ComputeAt, ReverseComputeAt, ReadAt, WriteAt
compute_inline     CI                        ComputeInline, ReverseComputeInline
compute_root       CR                        ComputeAt or ReverseComputeAt whose sampled place is the root
cache_read         CHR                       CacheRead, ReindexCacheRead, CacheInplace, CacheIndex, ReIndex
cache_write        CHW                       CacheWrite, ReindexCacheWrite
rfactor            RF                        RFactor, DecomposeReduction
storage            SA                        StorageAlign, SetScope, UnsafeSetDType
layout             -                         Transform(Block)Layout, PadEinsum, DecomposePadding, RollingBuffer
pragma             PR of another name, AN 0  Annotate of another key, Unannotate
other              anything else             anything else

Instructions that only find things or draw values (GetSBlock, GetLoops, SamplePerfectTile, ...) make no token: what they
found or drew stands in the tokens of those that use it.
"""

from __future__ import annotations

from enum import IntEnum
from math import isfinite, log2
from typing import NamedTuple


class Kind(IntEnum):
    """What a primitive does. The numbers are part of every trained model: append, never renumber."""

    OTHER = 0
    SPLIT = 1
    REORDER = 2
    FUSE = 3
    UNROLL = 4
    VECTORIZE = 5
    PARALLEL = 6
    BIND_VTHREAD = 7
    BIND_BLOCK = 8
    BIND_THREAD = 9
    TENSORIZE = 10
    COMPUTE_AT = 11
    COMPUTE_INLINE = 12
    COMPUTE_ROOT = 13
    CACHE_READ = 14
    CACHE_WRITE = 15
    RFACTOR = 16
    STORAGE = 17
    LAYOUT = 18
    PRAGMA = 19


VOCABULARY_VERSION = 1
"""Bump when kinds or the meaning of values change: a model of another version is refused."""
WIDTH = 12
"""Values per token; longer lists are cut."""


class Step(NamedTuple):
    """One primitive: what it does, to which block (Ansor: stage), and up to WIDTH numbers.

    split: extent (0 when it is not known), then the factors from outer to inner, as log2(1 + x)
    reorder: log2(1 + loops), then each loop's rank before, divided by their number
    fuse: log2(1 + loops); unroll, vectorize, parallel: log2(1 + extent or limit), then the loop's position
    bind_*: axis (0 to 2), then the loop's position; compute_at: position of the place
    cache_*: index of the buffer, scope (0 global, 1 shared, 2 local, 3 other); the rest: their numbers
    """

    kind: Kind
    block: int
    values: tuple[float, ...]


MOST_BLOCKS = 1 << 15
MISFITS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError)
"""What reading a primitive without the fields of its name raises; it is then `other`, since logs are foreign text."""


def known(step: Step) -> bool:
    """Whether a model can be given it: a block that exists, and finite numbers."""
    return isinstance(step.block, int) and 0 <= step.block < MOST_BLOCKS and all(map(isfinite, step.values))


def log_value(number: float) -> float:
    """Extents, factors and counts as a model sees them: log2(1 + number)."""
    return log2(1.0 + number)


SCOPES = {"global": 0.0, "shared": 1.0, "local": 2.0}
OTHER_SCOPE = 3.0


def scope_value(scope: object) -> float:
    """`shared.dyn` counts as shared."""
    return SCOPES.get(str(scope).partition(".")[0], OTHER_SCOPE)
