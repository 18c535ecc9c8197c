"""MetaSchedule's traces as tokens, of any TVM version (`GetBlock` and `GetSBlock`).

A trace is [instructions, decisions]; an instruction is [name, inputs, attributes, outputs], where variables are named
`b0` (blocks), `l5` (loops) and `v12` (numbers). Drawn values are resolved, so a token holds numbers, not names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from crosstune.cost_model.tokens.vocabulary import MISFITS, WIDTH, Kind, Step, known, log_value, scope_value

POSTPROCESSING = "EnterPostproc"
FINDING = frozenset(
    {
        "GetBlock",
        "GetChildBlocks",
        "GetChildSBlocks",
        "GetConsumers",
        "GetLoops",
        "GetOutputBlocks",
        "GetOutputSBlocks",
        "GetProducers",
        "GetSBlock",
    }
)
LONGEST_NAME = 8
ROOT, INLINE = -1, -2
"""What SampleComputeLocation draws instead of a loop."""
ANNOTATED: Mapping[str, Kind] = {
    "meta_schedule.parallel": Kind.PARALLEL,
    "meta_schedule.vectorize": Kind.VECTORIZE,
    "meta_schedule.unroll_explicit": Kind.UNROLL,
    "meta_schedule.unroll_implicit": Kind.UNROLL,
    "pragma_auto_unroll_max_step": Kind.UNROLL,
    "meta_schedule.auto_tensorize": Kind.TENSORIZE,
    "meta_schedule.auto_tensorize_init": Kind.TENSORIZE,
}
BOUND: Mapping[str, tuple[Kind, float]] = {
    **{f"blockIdx.{axis}": (Kind.BIND_BLOCK, float(place)) for place, axis in enumerate("xyz")},
    **{f"threadIdx.{axis}": (Kind.BIND_THREAD, float(place)) for place, axis in enumerate("xyz")},
}


@dataclass(slots=True)
class _Variables:
    """What is known of the variables that instructions have made so far."""

    numbers: dict[str, float] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """Loops that stand for ROOT or INLINE."""
    block_of: dict[str, int] = field(default_factory=dict)
    """The number of the block that a loop belongs to."""

    def number(self, value: Any) -> float:
        """A literal or a drawn value; 0 for what is not known."""
        if isinstance(value, int | float):
            return float(value)
        return self.numbers.get(value, 0.0) if isinstance(value, str) else 0.0

    def block(self, name: Any) -> int:
        """Of a block variable, or of a loop."""
        if not isinstance(name, str):
            return 0
        is_block = name.startswith("b") and name[1:].isdecimal() and len(name) < LONGEST_NAME
        return _index(name) if is_block else self.block_of.get(name, 0)


def trace_steps(trace: Sequence[Any]) -> list[Step]:
    """A token per primitive up to the post-processing; an instruction of an unknown name is `other`."""
    instructions, decisions = trace
    drawn = {int(index): value for index, value in decisions}
    variables = _Variables()
    tokens: list[Step] = []
    for index, (name, inputs, attributes, outputs) in enumerate(instructions):
        if name == POSTPROCESSING:
            break
        if name.startswith("Sample"):
            _draw(variables, name, attributes, outputs, drawn.get(index))
        elif name not in FINDING:
            tokens.append(_token(variables, name, inputs, attributes))
        _remember_blocks(variables, name, inputs, outputs)
    return tokens


def _token(variables: _Variables, name: str, inputs: Sequence[Any], attributes: Sequence[Any]) -> Step:
    make = MAKERS.get(name)
    try:
        made = None if make is None else make(variables, inputs, attributes)
    except MISFITS:
        made = None
    return made if made is not None and known(made) else Step(Kind.OTHER, 0, ())


def _draw(variables: _Variables, name: str, attributes: Sequence[Any], outputs: Sequence[str], value: Any) -> None:
    """A value that does not fit its instruction leaves its variables unknown, as no value does."""
    try:
        _resolve(variables, name, attributes, outputs, value)
    except MISFITS:
        return


def _resolve(variables: _Variables, name: str, attributes: Sequence[Any], outputs: Sequence[str], value: Any) -> None:
    if name == "SampleCategorical":
        variables.numbers[outputs[0]] = float(attributes[0][int(value)])
    elif name == "SampleComputeLocation":
        if int(value) < 0:
            variables.places[outputs[0]] = int(value)
        variables.numbers[outputs[0]] = float(value)
    elif isinstance(value, list):
        variables.numbers.update((output, float(factor)) for output, factor in zip(outputs, value, strict=True))


def _remember_blocks(variables: _Variables, name: str, inputs: Sequence[Any], outputs: Sequence[str]) -> None:
    loops = [output for output in outputs if output.startswith("l")]
    if loops and inputs and name != "SampleComputeLocation":
        block = variables.block(inputs[0])
        variables.block_of.update((loop, block) for loop in loops)


def _split(variables: _Variables, inputs: Sequence[Any], _: Sequence[Any]) -> Step:
    factors = [variables.number(value) for value in inputs[1:]]
    values = (prod(factors), *factors)  # the extent is 0 when a factor is not known
    return Step(Kind.SPLIT, variables.block(inputs[0]), tuple(log_value(value) for value in values)[:WIDTH])


def _reorder(variables: _Variables, inputs: Sequence[Any], _: Sequence[Any]) -> Step:
    order = sorted(inputs, key=_index)
    ranks = (order.index(loop) / len(inputs) for loop in inputs)
    return Step(Kind.REORDER, variables.block(inputs[0]), (log_value(len(inputs)), *ranks)[:WIDTH])


def _fuse(variables: _Variables, inputs: Sequence[Any], _: Sequence[Any]) -> Step:
    return Step(Kind.FUSE, variables.block(inputs[0]), (log_value(len(inputs)),))


def _marked(kind: Kind) -> Maker:
    def make(variables: _Variables, inputs: Sequence[Any], _: Sequence[Any]) -> Step:
        return Step(kind, variables.block(inputs[0]), (0.0,))

    return make


def _bind(variables: _Variables, inputs: Sequence[Any], attributes: Sequence[Any]) -> Step:
    kind, axis = BOUND.get(attributes[0], (Kind.BIND_VTHREAD, 0.0))
    return Step(kind, variables.block(inputs[0]), (axis,))


def _annotate(variables: _Variables, inputs: Sequence[Any], attributes: Sequence[Any]) -> Step:
    kind = ANNOTATED.get(attributes[0], Kind.PRAGMA)
    values = () if kind is Kind.PRAGMA else (log_value(abs(variables.number(inputs[1]))),)
    return Step(kind, variables.block(inputs[0]), values)


def _compute_at(variables: _Variables, inputs: Sequence[Any], _: Sequence[Any]) -> Step:
    place = variables.places.get(inputs[1])
    kinds = {ROOT: Kind.COMPUTE_ROOT, INLINE: Kind.COMPUTE_INLINE}
    kind = Kind.COMPUTE_AT if place is None else kinds[place]
    values = (variables.number(inputs[1]),) if kind is Kind.COMPUTE_AT else ()
    return Step(kind, variables.block(inputs[0]), values)


def _cache(kind: Kind) -> Maker:
    def make(variables: _Variables, inputs: Sequence[Any], attributes: Sequence[Any]) -> Step:
        index = attributes[0] if attributes and isinstance(attributes[0], int) else 0
        scopes = [value for value in attributes if isinstance(value, str)]
        values = (float(index), scope_value(scopes[-1] if scopes else ""), float(len(inputs) - 1))
        return Step(kind, variables.block(inputs[0]), values)

    return make


def _plain(kind: Kind) -> Maker:
    def make(variables: _Variables, inputs: Sequence[Any], attributes: Sequence[Any]) -> Step:
        numbers = [variables.number(value) for value in inputs[1:]]
        numbers += [float(value) for value in attributes if isinstance(value, int | float)]
        return Step(kind, variables.block(inputs[0]), tuple(numbers)[:WIDTH])

    return make


def _index(name: str) -> int:
    """12 of `l12`."""
    return int(name[1:])


Maker = Callable[[_Variables, Sequence[Any], Sequence[Any]], Step]
MAKERS: Mapping[str, Maker] = {
    "AddUnitLoop": _fuse,
    "Annotate": _annotate,
    "Bind": _bind,
    "Blockize": _plain(Kind.TENSORIZE),
    "CacheIndex": _cache(Kind.CACHE_READ),
    "CacheInplace": _cache(Kind.CACHE_READ),
    "CacheRead": _cache(Kind.CACHE_READ),
    "CacheWrite": _cache(Kind.CACHE_WRITE),
    "ComputeAt": _compute_at,
    "ComputeInline": _plain(Kind.COMPUTE_INLINE),
    "DecomposePadding": _plain(Kind.LAYOUT),
    "DecomposeReduction": _plain(Kind.RFACTOR),
    "Fuse": _fuse,
    "LoopPartition": _split,
    "PadEinsum": _plain(Kind.LAYOUT),
    "Parallel": _marked(Kind.PARALLEL),
    "RFactor": _plain(Kind.RFACTOR),
    "ReIndex": _cache(Kind.CACHE_READ),
    "ReadAt": _compute_at,
    "ReindexCacheRead": _cache(Kind.CACHE_READ),
    "ReindexCacheWrite": _cache(Kind.CACHE_WRITE),
    "Reorder": _reorder,
    "ReorderBlockIterVar": _plain(Kind.REORDER),
    "ReverseComputeAt": _compute_at,
    "ReverseComputeInline": _plain(Kind.COMPUTE_INLINE),
    "RollingBuffer": _plain(Kind.LAYOUT),
    "SetScope": _plain(Kind.STORAGE),
    "Split": _split,
    "StorageAlign": _plain(Kind.STORAGE),
    "Tensorize": _plain(Kind.TENSORIZE),
    "TransformBlockLayout": _plain(Kind.LAYOUT),
    "TransformLayout": _plain(Kind.LAYOUT),
    "Unannotate": _plain(Kind.PRAGMA),
    "Unroll": _marked(Kind.UNROLL),
    "UnsafeSetDType": _plain(Kind.STORAGE),
    "Vectorize": _marked(Kind.VECTORIZE),
    "WriteAt": _compute_at,
}
