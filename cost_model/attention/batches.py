"""Programs of one group as padded arrays, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.attention.elsewhere import ElsewhereTrees
from crosstune.cost_model.features import STATEMENT_COLUMNS, VECTOR_LENGTH, Matrix, vectors
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens import evidence
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH, HardwareToken
from crosstune.cost_model.tokens.schedule import padded
from crosstune.cost_model.tokens.vocabulary import WIDTH
from crosstune.cost_model.tokens.workload import WORKLOAD_WIDTH, WorkloadToken

STATEMENTS = 12
"""Of a program at most; later ones are cut. There is room for one at least, so that no axis is empty."""
MOST_BLOCKS = 32
BATCH_LAYOUT = 2
"""Raised when what a model is fed changes; models of another layout are refused."""


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
    """(n, VECTOR_LENGTH): the stores of a program pooled, see features.vectors; zeros where there are none"""
    kinds: NDArray[np.int64]
    """(n, steps)"""
    blocks: NDArray[np.int64]
    values: NDArray[np.float32]
    """(n, steps, WIDTH)"""
    step_mask: NDArray[np.bool_]
    evidence: NDArray[np.float32]
    """(n, EVIDENCE, EVIDENCE_WIDTH)"""
    evidence_mask: NDArray[np.bool_]
    trees: NDArray[np.float32]
    """(n,): what trees expect, in deviations above the mean of the candidates; 0 where they expect nothing"""
    elsewhere: NDArray[np.float32]
    """(n,): the same from the workload's measurements on other targets, see ElsewhereTrees; part of the evidence"""

    def __len__(self) -> int:
        return len(self.hardware)

    def without_evidence(self) -> Batch:
        """As if nothing were known of the workload elsewhere."""
        return replace(self, evidence_mask=np.zeros_like(self.evidence_mask), elsewhere=np.zeros_like(self.elsewhere))

    def chosen(self, indices: NDArray[np.int64]) -> Batch:
        """The programs at `indices`, with the padding that these need."""
        parts = {each.name: getattr(self, each.name)[indices] for each in fields(self)}
        stores, steps = _longest(parts["statement_mask"]), _longest(parts["step_mask"])
        for name in ("statements", "statement_mask"):
            parts[name] = parts[name][:, :stores]
        for name in ("kinds", "blocks", "values", "step_mask"):
            parts[name] = parts[name][:, :steps]
        return Batch(**parts)


def empty_batch(count: int, stores: int, steps: int) -> Batch:
    """`count` programs of which nothing is known."""
    return Batch(
        hardware=np.zeros((count, HARDWARE_WIDTH), dtype=np.float32),
        workload=np.zeros((count, WORKLOAD_WIDTH), dtype=np.float32),
        statements=np.zeros((count, stores, STATEMENT_COLUMNS), dtype=np.float32),
        statement_mask=np.zeros((count, stores), dtype=bool),
        summary=np.zeros((count, VECTOR_LENGTH), dtype=np.float32),
        kinds=np.zeros((count, steps), dtype=np.int64),
        blocks=np.zeros((count, steps), dtype=np.int64),
        values=np.zeros((count, steps, WIDTH), dtype=np.float32),
        step_mask=np.zeros((count, steps), dtype=bool),
        evidence=np.zeros((count, evidence.EVIDENCE, evidence.EVIDENCE_WIDTH), dtype=np.float32),
        evidence_mask=np.zeros((count, evidence.EVIDENCE), dtype=bool),
        trees=np.zeros(count, dtype=np.float32),
        elsewhere=np.zeros(count, dtype=np.float32),
    )


def group_batch(group: Group, others: Sequence[Group], taught: ElsewhereTrees | None = None) -> Batch:
    """All programs of a group, with evidence from `others` (the same workload on other targets).

    `taught`: trees that were trained on `others` before.
    """
    tokens, mask = evidence.evidence(group, others)
    batch = program_batch(group.programs, group.hardware, group.shape, tokens, mask)
    if not others:
        return batch
    taught = taught or ElsewhereTrees(group.hardware, others)
    return replace(batch, elsewhere=taught.expect(group.schedules))


def program_batch(
    programs: Sequence[Program],
    hardware: HardwareToken,
    workload: WorkloadToken,
    evidence_tokens: NDArray[np.float32],
    evidence_mask: NDArray[np.bool_],
) -> Batch:
    count = len(programs)
    statements, statement_mask = _padded_statements([one.statements for one in programs])
    steps = padded([one.schedule for one in programs])
    return replace(
        empty_batch(count, 1, 1),
        hardware=np.repeat(hardware[None], count, axis=0),
        workload=np.repeat(workload[None], count, axis=0),
        statements=statements,
        statement_mask=statement_mask,
        summary=vectors(statements, statement_mask),
        kinds=steps.kinds,
        blocks=np.minimum(steps.blocks, MOST_BLOCKS - 1),
        values=steps.values,
        step_mask=steps.mask,
        evidence=evidence_tokens,
        evidence_mask=evidence_mask,
    )


def _padded_statements(matrices: Sequence[Matrix | None]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n, stores, 164), and which rows are there."""
    lengths = np.array([0 if one is None else min(STATEMENTS, len(one)) for one in matrices], dtype=np.int64)
    mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    padded = np.zeros((*mask.shape, STATEMENT_COLUMNS), dtype=np.float32)
    if mask.any():
        padded[mask] = np.concatenate([one[:STATEMENTS] for one in matrices if one is not None])
    return padded, mask


def _longest(mask: NDArray[np.bool_]) -> int:
    return max(1, int(mask.sum(axis=1).max(initial=0)))
