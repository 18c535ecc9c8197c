"""Schedule tokens: a program's primitives as arrays, from whatever log they came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.formats import ansor, metaschedule
from crosstune.cost_model.tokens.ansor_steps import ansor_steps
from crosstune.cost_model.tokens.trace_steps import trace_steps
from crosstune.cost_model.tokens.vocabulary import WIDTH, Step


@dataclass(frozen=True, slots=True)
class ScheduleTokens:
    """kinds, blocks: (steps,); values: (steps, WIDTH), zero where a step has fewer."""

    kinds: NDArray[np.int16]
    blocks: NDArray[np.int16]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.kinds)


def steps_of(kind: str, trace: str) -> list[Step]:
    """The primitives of a data set's row: its `format` and its `trace`. ValueError for an unknown format."""
    if kind == ansor.FORMAT:
        return ansor_steps(json.loads(trace))
    if kind == metaschedule.FORMAT:
        return trace_steps(json.loads(trace))
    raise ValueError(f"no format {kind!r}; known: {ansor.FORMAT}, {metaschedule.FORMAT}")


def tokens(steps: Sequence[Step]) -> ScheduleTokens:
    """`steps` as arrays."""
    values = np.zeros((len(steps), WIDTH), dtype=np.float32)
    for row, step in zip(values, steps, strict=True):
        row[: len(step.values)] = step.values
    blocks = np.array([step.block for step in steps], dtype=np.int16)
    return ScheduleTokens(np.array([step.kind for step in steps], dtype=np.int16), blocks, values)
