"""Groups as arrays with labels, made once and used in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.attention.batches import Batch, group_batch
from crosstune.cost_model.groups import Group, by_workload
from crosstune.cost_model.roofline import roofline_s


@dataclass(slots=True)
class Prepared:
    """A group's arrays, made once."""

    group: Group
    batch: Batch
    labels: NDArray[np.float64]
    slowness: NDArray[np.float64]
    """(n,) log2 of the latency over the program's roofline; NaN where either is not known"""


def prepare(groups: Sequence[Group], evidence_from: Sequence[Group]) -> list[Prepared]:
    """Batches with evidence from those of `evidence_from` that measured the same workload on another target."""
    known = by_workload(evidence_from)
    found = []
    for group in groups:
        others = [one for one in known.get(group.workload, []) if one.target != group.target]
        batch = group_batch(group, others)
        found.append(Prepared(group, batch, group.labels, _slowness(group, batch)))
    return found


def _slowness(group: Group, batch: Batch) -> NDArray[np.float64]:
    latencies_s = np.array([np.nan if one.latency_s is None else one.latency_s for one in group.programs])
    found: NDArray[np.float64] = np.log2(latencies_s / roofline_s(group.hardware, group.shape, batch.summary))
    return found
