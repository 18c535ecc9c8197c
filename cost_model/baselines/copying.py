"""Copy the order that the most similar programs had on the nearest other target: no model, and hard to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosstune.cost_model.attention.batches import Batch
from crosstune.cost_model.attention.prepared import Prepared
from crosstune.cost_model.evaluation import GroupScore, group_score
from crosstune.cost_model.ranker import Scores
from crosstune.cost_model.tokens.evidence import HARDWARE_DISTANCE, SCHEDULE_DISTANCE, SPEED


def copied_scores(batch: Batch) -> Scores:
    """(n,) speeds on the nearest target for which there is evidence; NaN where there is none.

    A tie between targets goes to the more similar schedule.
    """
    far = batch.evidence[..., HARDWARE_DISTANCE] + 1e-3 * batch.evidence[..., SCHEDULE_DISTANCE]
    far = np.where(batch.evidence_mask, far, np.inf)
    nearest = np.argmin(far, axis=1)
    rows = np.arange(len(nearest))
    speeds: Scores = batch.evidence[rows, nearest, SPEED].astype(np.float64)
    speeds[~batch.evidence_mask.any(axis=1)] = np.nan
    return speeds


def copying_scores(test: Sequence[Prepared]) -> list[GroupScore]:
    """Of the groups of whose programs all have evidence."""
    known = [(one, copied_scores(one.batch)) for one in test]
    return [group_score(one.group, speeds) for one, speeds in known if not np.isnan(speeds).any()]
