"""What a data set holds, counted in one pass over a few of its columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import batches
from crosstune.cost_model.tokens.schedule import steps_of
from crosstune.cost_model.tokens.vocabulary import Kind, Step

COUNTED = ["source", "format", "device", "target", "workload", "invalidity"]
SMALL_TASK = 48
"""TenSet's experiments leave out tasks with fewer records (tlc-pack/tenset, make_dataset.py)."""

Group = tuple[str, str, str, str]
"""source, format, device, target"""


@dataclass(slots=True)
class GroupCounts:
    """Records of one source on one target."""

    records: int = 0
    invalidities: Counter[str] = field(default_factory=Counter)
    per_workload: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    other_steps: int = 0

    def add_schedule(self, steps: Sequence[Step]) -> None:
        self.steps += len(steps)
        self.other_steps += sum(step.kind is Kind.OTHER for step in steps)

    def to_json(self) -> dict[str, Any]:
        sizes = list(self.per_workload.values())
        return {
            "records": self.records,
            "failures": self.invalidities.total(),
            "invalidities": dict(sorted(self.invalidities.items())),
            "workloads": len(sizes),
            "records_per_workload": {"least": min(sizes), "median": median(sizes), "most": max(sizes)},
            "small_workloads": sum(size < SMALL_TASK for size in sizes),
            "other_steps_share": self.other_steps / self.steps if self.steps else None,
        }


def count(folder: DatasetFolder, vocabulary: bool = False) -> dict[str, Any]:
    """Totals, and per source, format, device and target: records, failures by reason, workloads, records of each.

    `vocabulary` also reads every schedule and counts the steps that the vocabulary does not know (20,000 records/s).
    Raises NoDataset, or WrongLayout for a part of another version.
    """
    groups: defaultdict[Group, GroupCounts] = defaultdict(GroupCounts)
    names = [*COUNTED, "trace"] if vocabulary else COUNTED
    for batch in batches(folder, names):
        for source, kind, device, target, workload, invalidity, *trace in columns.rows(batch, names):
            group = groups[source, kind, device, target]
            group.records += 1
            group.per_workload[workload] += 1
            if invalidity is not None:
                group.invalidities[invalidity] += 1
            if trace:
                group.add_schedule(steps_of(kind, trace[0]))
    rows = [
        dict(zip(("source", "format", "device", "target"), key, strict=True)) | counts.to_json()
        for key, counts in sorted(groups.items())
    ]
    return {**folder.totals(), "size_bytes": _size_bytes(folder), "groups": rows}


def _size_bytes(folder: DatasetFolder) -> int:
    return sum(path.stat().st_size for path in [*folder.record_files(), *folder.workload_files()])
