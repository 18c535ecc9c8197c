"""Schedule tokens: a program's primitives as arrays, from whatever log they came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.formats import ansor, metaschedule
from crosstune.cost_model.tokens.ansor_steps import ansor_steps
from crosstune.cost_model.tokens.trace_steps import trace_steps
from crosstune.cost_model.tokens.vocabulary import WIDTH, Kind, Step

SUMMARY_WIDTH = len(Kind) * (1 + WIDTH)


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


def summary(schedule: ScheduleTokens) -> NDArray[np.float32]:
    """One schedule as (SUMMARY_WIDTH,), see `summaries`."""
    everything = np.ones((1, len(schedule)), dtype=bool)
    found: NDArray[np.float32] = summaries(schedule.kinds[None], schedule.values[None], everything)[0]
    return found


def summaries(kinds: NDArray[Any], values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Schedules as (n, SUMMARY_WIDTH): of each kind of primitive how many there are, and the sums of their values.

    kinds (n, steps), values (n, steps, WIDTH); what `mask` (n, steps) leaves out does not count.
    """
    of_kind = (kinds[..., None] == np.arange(len(Kind))) & mask[..., None]
    counted = np.concatenate([np.ones((*kinds.shape, 1), dtype=np.float32), values], axis=2)
    found: NDArray[np.float32] = np.einsum("nsk,nsv->nkv", of_kind.astype(np.float32), counted, optimize=True)
    return found.reshape(len(kinds), SUMMARY_WIDTH)
