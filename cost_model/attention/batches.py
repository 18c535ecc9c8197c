"""Programs of one group as padded arrays, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.features import STATEMENT_COLUMNS, VECTOR_LENGTH, vector
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens import evidence
from crosstune.cost_model.tokens.hardware import HardwareToken
from crosstune.cost_model.tokens.vocabulary import WIDTH
from crosstune.cost_model.tokens.workload import WorkloadToken

STATEMENTS, STEPS = 12, 56
"""Tokens of a program at most; later ones are cut."""
MOST_BLOCKS = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """n programs of one workload on one target; masks say what is there."""

    hardware: NDArray[np.float32]
    """(n, HARDWARE_WIDTH)"""
    workload: NDArray[np.float32]
    """(n, WORKLOAD_WIDTH)"""
    statements: NDArray[np.float32]
    """(n, stores, 164)"""
    statement_mask: NDArray[np.bool_]
    summary: NDArray[np.float32]
    """(n, VECTOR_LENGTH): all stores of a program pooled, see features.vector; zeros where there are none"""
    kinds: NDArray[np.int64]
    """(n, steps)"""
    blocks: NDArray[np.int64]
    values: NDArray[np.float32]
    """(n, steps, WIDTH)"""
    step_mask: NDArray[np.bool_]
    evidence: NDArray[np.float32]
    """(n, EVIDENCE, EVIDENCE_WIDTH)"""
    evidence_mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hardware)

    def chosen(self, indices: NDArray[np.int64]) -> Batch:
        """The programs at `indices`, with the padding that these need."""
        parts = {each.name: getattr(self, each.name)[indices] for each in fields(self)}
        stores, steps = _longest(parts["statement_mask"]), _longest(parts["step_mask"])
        for name in ("statements", "statement_mask"):
            parts[name] = parts[name][:, :stores]
        for name in ("kinds", "blocks", "values", "step_mask"):
            parts[name] = parts[name][:, :steps]
        return Batch(**parts)


def group_batch(group: Group, others: Sequence[Group]) -> Batch:
    """All programs of a group, with evidence from `others` (the same workload on other targets)."""
    tokens, mask = evidence.evidence(group, others)
    return program_batch(group.programs, group.hardware, group.shape, tokens, mask)


def program_batch(
    programs: Sequence[Program],
    hardware: HardwareToken,
    workload: WorkloadToken,
    evidence_tokens: NDArray[np.float32],
    evidence_mask: NDArray[np.bool_],
) -> Batch:
    count = len(programs)
    stores = max((min(STATEMENTS, len(one.statements)) for one in programs if one.statements is not None), default=0)
    steps = max((min(STEPS, len(one.schedule)) for one in programs), default=0)
    batch = Batch(
        hardware=np.repeat(hardware[None], count, axis=0),
        workload=np.repeat(workload[None], count, axis=0),
        statements=np.zeros((count, stores, STATEMENT_COLUMNS), dtype=np.float32),
        statement_mask=np.zeros((count, stores), dtype=bool),
        summary=np.zeros((count, VECTOR_LENGTH), dtype=np.float32),
        kinds=np.zeros((count, steps), dtype=np.int64),
        blocks=np.zeros((count, steps), dtype=np.int64),
        values=np.zeros((count, steps, WIDTH), dtype=np.float32),
        step_mask=np.zeros((count, steps), dtype=bool),
        evidence=evidence_tokens,
        evidence_mask=evidence_mask,
    )
    for row, program in enumerate(programs):
        if program.statements is not None:
            length = min(stores, len(program.statements))
            batch.statements[row, :length] = program.statements[:length]
            batch.statement_mask[row, :length] = True
            batch.summary[row] = vector(program.statements)
        length = min(steps, len(program.schedule))
        batch.kinds[row, :length] = program.schedule.kinds[:length]
        batch.blocks[row, :length] = np.minimum(program.schedule.blocks[:length], MOST_BLOCKS - 1)
        batch.values[row, :length] = program.schedule.values[:length]
        batch.step_mask[row, :length] = True
    return batch


def _longest(mask: NDArray[np.bool_]) -> int:
    return int(mask.sum(axis=1).max(initial=0))
