"""Schedule tokens: a program's primitives as arrays, from whatever log they came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.formats import ansor, metaschedule
from crosstune.cost_model.tokens.ansor_steps import ansor_steps
from crosstune.cost_model.tokens.trace_steps import trace_steps
from crosstune.cost_model.tokens.vocabulary import WIDTH, Kind, Step

SUMMARY_WIDTH = len(Kind) * (1 + WIDTH)
STEPS = 56
"""Steps of a schedule at most; later ones are cut."""
LONGEST = 48
"""Steps of a schedule that are compared one by one with those of another."""
STEP_COLUMNS = LONGEST * (1 + WIDTH)


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


class Padded(NamedTuple):
    """Schedules side by side: kinds, blocks, mask (n, steps); values (n, steps, WIDTH). The mask says what is there."""

    kinds: NDArray[np.int64]
    blocks: NDArray[np.int64]
    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


def padded(schedules: Sequence[ScheduleTokens]) -> Padded:
    """At most STEPS steps of each, later ones are cut; there is room for one at least, so that no axis is empty."""
    lengths = np.array([min(STEPS, len(one)) for one in schedules], dtype=np.int64)
    steps = max(1, int(lengths.max(initial=0)))
    mask = np.arange(steps) < lengths[:, None]
    kinds = np.zeros(mask.shape, dtype=np.int64)
    blocks = np.zeros(mask.shape, dtype=np.int64)
    values = np.zeros((*mask.shape, WIDTH), dtype=np.float32)
    if mask.any():
        kinds[mask] = np.concatenate([one.kinds[:STEPS] for one in schedules])
        blocks[mask] = np.concatenate([one.blocks[:STEPS] for one in schedules])
        values[mask] = np.concatenate([one.values[:STEPS] for one in schedules])
    return Padded(kinds, blocks, values, mask)


def schedule_rows(
    kinds: NDArray[np.int64], values: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(n, STEP_COLUMNS + SUMMARY_WIDTH) of padded schedules: kinds and values of the steps one after the other, then
    their summary; for comparing schedules of one workload."""
    count, steps = len(kinds), min(LONGEST, kinds.shape[1])
    found = np.zeros((count, LONGEST, 1 + WIDTH), dtype=np.float32)
    there = mask[:, :steps]
    found[:, :steps, 0] = 4.0 * kinds[:, :steps] * there
    found[:, :steps, 1:] = values[:, :steps] * there[..., None]
    return np.concatenate([found.reshape(count, STEP_COLUMNS), summaries(kinds, values, mask)], axis=1)
