"""What a model is trained on: groups with evidence, with what trees expect of them, and some to tell when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosstune.cost_model.attention.prepared import Prepared, prepare
from crosstune.cost_model.attention.trees import Trees, out_of_fold
from crosstune.cost_model.groups import Group

VALIDATION_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a model is fitted to, what tells when to stop, and trees trained on all of it."""

    fitted: list[Prepared]
    validation: list[Prepared]
    trees: Trees


def training_set(groups: Sequence[Group], seed: int, threads: int = 1, with_evidence: bool = True) -> TrainingSet:
    """All that is not held out, each with evidence from the rest and with what trees expect that never saw it.

    `with_evidence`: False spares the work where no model looks at it.
    """
    trainable = [group for group in groups if not group.held_out]
    fitted, validation = _validation(trainable, seed)
    ready = [
        *prepare(fitted, fitted if with_evidence else ()),
        *prepare(validation, trainable if with_evidence else ()),
    ]
    prepared = out_of_fold(ready, seed, threads)
    trees = Trees.trained(prepared, seed, threads=threads)
    return TrainingSet(prepared[: len(fitted)], prepared[len(fitted) :], trees)


def _validation(groups: Sequence[Group], seed: int) -> tuple[list[Group], list[Group]]:
    """Whole workloads for early stopping, on all targets."""
    names = sorted({group.workload for group in groups})
    if not names:
        return [], []
    chosen = np.random.default_rng(seed + 1).permutation(len(names))[: max(1, round(VALIDATION_SHARE * len(names)))]
    held = {names[position] for position in chosen}
    if len(held) >= len(names):
        return list(groups), []
    return [g for g in groups if g.workload not in held], [g for g in groups if g.workload in held]
