"""What pruning looks at: measured programs, grouped into tasks, with labels and a fixed-length description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """tasks: (n,) number of the task (workload on target) of each program; labels: (n,) throughput relative to the
    task's fastest, 0 to 1; features: (n, d), or (n, 0) where no method needs them."""

    tasks: NDArray[np.int64]
    labels: NDArray[np.float64]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def by_task(self) -> Iterator[Indices]:
        """Indices of each task's programs."""
        order = np.argsort(self.tasks, kind="stable")
        cuts = np.flatnonzero(np.diff(self.tasks[order])) + 1
        yield from (part for part in np.split(order, cuts) if part.size)


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns with mean 0 and deviation 1; those that never change are left out."""
    spread = features.std(axis=0)
    changing = spread > 1e-6
    kept = features[:, changing]
    found: NDArray[np.float32] = ((kept - kept.mean(axis=0)) / spread[changing]).astype(np.float32)
    return found
