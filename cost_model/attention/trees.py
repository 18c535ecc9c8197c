"""Gradient-boosted trees beside the network: what they expect of a program is where its score starts from.

They see what the network sees of a program, in fixed columns: its stores pooled, the same less the mean over the
candidates beside it, its schedule's primitives summed by kind, and the hardware. They learn how many deviations a
program is faster than its group's mean, so that every group counts alike; several are averaged.

The network must learn where trees are wrong about programs that they were not trained on. So in training each
workload's programs get the expectation of trees that were trained on the other workloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from crosstune.cost_model.attention.batches import Batch
from crosstune.cost_model.attention.card import TREES, UnusableModel
from crosstune.cost_model.attention.prepared import Prepared
from crosstune.cost_model.baselines.xgboost_ranker import LARGE, LARGE_ROUNDS, booster_settings
from crosstune.cost_model.groups import standardised
from crosstune.cost_model.tokens.schedule import summaries

FOLDS = 3
BAGS = 4
SETTINGS = {**LARGE, "colsample_bytree": 0.25, "base_score": 0.0}
"""Deviations have a mean of 0, and there are more columns than the baseline has."""


class Trees:
    """How many deviations faster than the candidates beside them programs should be."""

    def __init__(self, boosters: Sequence[Any]) -> None:
        self._boosters = tuple(boosters)

    @classmethod
    def trained(cls, groups: Sequence[Prepared], seed: int, bags: int = BAGS, threads: int = 1) -> Trees:
        """On all programs of `groups` that have statement features; they expect nothing when there are none."""
        described = [one.batch.statement_mask.any(axis=1) for one in groups]
        if not any(map(np.any, described)):
            return cls(())
        data = xgboost.QuantileDMatrix(
            np.concatenate([rows(one.batch)[there] for one, there in zip(groups, described, strict=True)]),
            np.concatenate([standardised(one.labels)[there] for one, there in zip(groups, described, strict=True)]),
            max_bin=SETTINGS["max_bin"],
            nthread=threads,
        )
        settings = [{**booster_settings(seed + bag, threads), **SETTINGS} for bag in range(bags)]
        return cls([xgboost.train(each, data, LARGE_ROUNDS) for each in settings])

    def expect(self, batch: Batch) -> Batch:
        """`batch` with its `trees` filled in."""
        described = batch.statement_mask.any(axis=1)
        found = np.zeros(len(batch), dtype=np.float32)
        if self._boosters and described.any():
            seen = rows(batch)[described]
            found[described] = np.mean([booster.inplace_predict(seen) for booster in self._boosters], axis=0)
        return replace(batch, trees=found)

    def save(self, folder: Path) -> None:
        """One file each; those of an earlier model are removed."""
        for old in folder.glob(TREES.format("*")):
            old.unlink()
        for number, booster in enumerate(self._boosters):
            booster.save_model(folder / TREES.format(number))

    @classmethod
    def load(cls, folder: Path, count: int, threads: int = 1) -> Trees:
        """`count`: as many as the card tells. Raises UnusableModel.

        More threads pay where nothing else runs: those that wait do so by spinning.
        """
        return cls([_load(folder / TREES.format(number), threads) for number in range(count)])

    def __len__(self) -> int:
        return len(self._boosters)


def _load(path: Path, threads: int) -> Any:
    booster = xgboost.Booster({"nthread": threads})
    try:
        booster.load_model(path)
    except xgboost.core.XGBoostError as error:
        raise UnusableModel(f"{path} holds no trees: {str(error).splitlines()[-1]}") from None
    return booster


def rows(batch: Batch) -> NDArray[np.float32]:
    """(n, columns) of a batch; programs without statement features have rows that mean nothing."""
    described = batch.statement_mask.any(axis=1)
    middle = batch.summary[described].mean(axis=0) if described.any() else 0.0
    primitives = summaries(batch.kinds, batch.values, batch.step_mask)
    parts = [batch.summary, batch.summary - middle, primitives, batch.hardware]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def out_of_fold(groups: Sequence[Prepared], seed: int, threads: int = 1) -> list[Prepared]:
    """Each group with what trees expect that never saw its workload."""
    names = sorted({one.group.workload for one in groups})
    fold_of: dict[str, int] = {}
    for place, position in enumerate(np.random.default_rng(seed).permutation(len(names))):
        fold_of[names[position]] = place % FOLDS
    folds = [fold_of[one.group.workload] for one in groups]
    trees = {
        fold: Trees.trained([one for one, own in zip(groups, folds, strict=True) if own != fold], seed, 1, threads)
        for fold in set(folds)
    }
    return [replace(one, batch=trees[fold].expect(one.batch)) for one, fold in zip(groups, folds, strict=True)]
