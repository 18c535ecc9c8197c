"""Ansor's transform steps as tokens (fields: apache/tvm 0.8, src/auto_scheduler/transform_step.cc)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from crosstune.cost_model.tokens.vocabulary import MISFITS, WIDTH, Kind, Step, known, log_value, scope_value

ANNOTATIONS: Mapping[int, tuple[Kind, float]] = {
    0: (Kind.PRAGMA, 0.0),
    1: (Kind.UNROLL, 0.0),
    2: (Kind.VECTORIZE, 0.0),
    3: (Kind.PARALLEL, 0.0),
    4: (Kind.BIND_VTHREAD, 0.0),
    5: (Kind.BIND_BLOCK, 0.0),
    6: (Kind.BIND_THREAD, 0.0),
    7: (Kind.BIND_BLOCK, 1.0),
    8: (Kind.BIND_THREAD, 1.0),
    9: (Kind.BIND_BLOCK, 2.0),
    10: (Kind.BIND_THREAD, 2.0),
    11: (Kind.TENSORIZE, 0.0),
}
"""By number: what it is and the axis (x, y, z)."""
UNROLL_PRAGMA = "auto_unroll_max_step"


def ansor_steps(steps: Sequence[Sequence[Any]]) -> list[Step]:
    """A token per step; a step of an unknown name, or without the fields of its name, is `other`.

    The factors of FSP and FFSP follow those of the split that they copy.
    """
    return [_token(step, steps) for step in steps]


def _token(step: Sequence[Any], steps: Sequence[Sequence[Any]]) -> Step:
    make = MAKERS.get(step[0])
    try:
        made = None if make is None else make(step, steps)
    except MISFITS:
        made = None
    return made if made is not None and known(made) else Step(Kind.OTHER, 0, ())


def _split(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    extent, lengths = step[3], step[4]
    return _split_token(step, extent, _outer_first(extent, lengths, bool(step[5])))


def _outer_first(extent: Any, lengths: Sequence[Any], inner_to_outer: bool) -> list[float]:
    """All factors of a split: the one that is left out of `lengths` is the outermost, or the innermost."""
    factors = [_number(length) for length in lengths if length]
    rest = _number(extent or 0) / prod(factors)
    return [rest, *factors] if inner_to_outer else [*factors, rest]


def _split_token(step: Sequence[Any], extent: Any, factors: Sequence[float]) -> Step:
    values = (log_value(_number(extent or 0)), *(log_value(factor) for factor in factors))
    return Step(Kind.SPLIT, step[1], values[:WIDTH])


def _follow_split(step: Sequence[Any], steps: Sequence[Sequence[Any]]) -> Step:
    """FSP [stage, iter, source step, number of factors]: the source's first factors, what is left as the last."""
    source = steps[step[3]]
    lengths = [_number(length) for length in source[4]]
    kept = step[4] - 1
    factors = [*lengths[:kept], prod(lengths[kept:])]
    return _split_token(step, source[3], _outer_first(source[3], factors, bool(source[5])))


def _follow_fused_split(step: Sequence[Any], steps: Sequence[Sequence[Any]]) -> Step:
    """FFSP [stage, iter, source steps, level, factor or parts]: the product of one level over several splits."""
    return _split_token(step, 0, [prod(_number(steps[index][4][step[4]]) for index in step[3])])


def _reorder(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    order = step[2]
    return Step(Kind.REORDER, step[1], (log_value(len(order)), *(_number(rank) / len(order) for rank in order))[:WIDTH])


def _fuse(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    return Step(Kind.FUSE, step[1], (log_value(len(step[2])), _number(step[2][0])))


def _annotate(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    kind, axis = ANNOTATIONS.get(step[3], (Kind.OTHER, 0.0))
    return Step(kind, step[1], (axis, _number(step[2])))


def _pragma(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    name, _dollar, value = step[3].partition("$")
    if name == UNROLL_PRAGMA:
        return Step(Kind.UNROLL, step[1], (log_value(int(value)), _number(step[2])))
    return Step(Kind.PRAGMA, step[1], ())


def _compute_at(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    return Step(Kind.COMPUTE_AT, step[1], (_number(step[3]), _number(step[2])))


def _cache_read(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    return Step(Kind.CACHE_READ, step[1], (0.0, scope_value(step[2]), float(len(step[3]))))


def _cache_write(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
    return Step(Kind.CACHE_WRITE, step[1], (0.0, scope_value(step[2])))


def _plain(kind: Kind) -> Callable[[Sequence[Any], Sequence[Sequence[Any]]], Step]:
    def make(step: Sequence[Any], _: Sequence[Sequence[Any]]) -> Step:
        return Step(kind, step[1], tuple(_number(value) for value in step[2:])[:WIDTH])

    return make


def _number(value: Any) -> float:
    """`float` would also take the text `nan`."""
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


MAKERS: Mapping[str, Callable[[Sequence[Any], Sequence[Sequence[Any]]], Step]] = {
    "AN": _annotate,
    "CA": _compute_at,
    "CHR": _cache_read,
    "CHW": _cache_write,
    "CI": _plain(Kind.COMPUTE_INLINE),
    "CR": _plain(Kind.COMPUTE_ROOT),
    "FFSP": _follow_fused_split,
    "FSP": _follow_split,
    "FU": _fuse,
    "PR": _pragma,
    "RE": _reorder,
    "RF": _plain(Kind.RFACTOR),
    "SA": _plain(Kind.STORAGE),
    "SP": _split,
}
