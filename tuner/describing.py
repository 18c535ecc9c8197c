"""Give the records of a data set the statement features that they were stored without, by replaying their traces."""

from __future__ import annotations

import base64
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.parquet as pq

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.columns import Writer
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import modules
from crosstune.cost_model.formats import metaschedule
from crosstune.tuner.child import Child, ChildError, Template
from crosstune.tuner.contracts import ChildFailed, TargetSpec

OPERATION = "operations.describe_programs:run"
BATCH = 64
TIMEOUT_S = 60.0
KIND = "llvm"
TRIPLE = "x86_64-linux-gnu"

Row = dict[str, Any]


def describe(
    template: Template, source: DatasetFolder, result: DatasetFolder, tell: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Write `source` with features to `result`; answers how many records had some, got some, or stay without.

    Only CPU programs of MetaSchedule whose module is in the data set and loads in this TVM can be described.
    """
    result.make_empty()
    counts = {"had": 0, "described": 0, "without": 0}
    programs = modules(source)
    with _Children(template) as children:
        for part in source.parts():
            if source.workloads_path(part.number).exists():
                shutil.copyfile(source.workloads_path(part.number), result.workloads_path(part.number))
            path = source.records_path(part.number)
            columns.check_layout(path, columns.RECORDS)
            with Writer(result.records_path(part.number), columns.RECORDS) as writer:
                for batch in pq.ParquetFile(path).iter_batches(batch_size=columns.ROW_GROUP):
                    rows = batch.to_pylist()
                    _describe_rows(rows, programs, children, counts)
                    for row in rows:
                        writer.append(tuple(row[name] for name in columns.RECORDS.names))
                    tell(len(rows))
            result.finish(part)
    return counts


def _describe_rows(
    rows: Sequence[Row], programs: dict[tuple[str, str], str], children: _Children, counts: dict[str, int]
) -> None:
    waiting: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["features"] is not None:
            counts["had"] += 1
        elif row["format"] == metaschedule.FORMAT and (row["source"], row["workload"]) in programs:
            waiting[row["source"], row["workload"], row["target"]].append(row)
        else:
            counts["without"] += 1
    for (name, workload, target), group in waiting.items():
        spec = _spec(target)
        for start in range(0, len(group), BATCH):
            chosen = group[start : start + BATCH]
            traces = [json.loads(row["trace"]) for row in chosen]
            found = [None] * len(chosen) if spec is None else children.ask(programs[name, workload], spec, traces)
            for row, features in zip(chosen, found, strict=True):
                row["features"] = None if features is None else base64.b64decode(features)
                counts["without" if features is None else "described"] += 1


class _Children:
    """One child, replaced when a program ends it; the batch that did stays without features."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._child: Child | None = None

    def ask(self, module: str, spec: TargetSpec, traces: Sequence[Any]) -> list[str | None]:
        payload = {"module": module, "target": spec.to_json(), "traces": list(traces), "threads": 1}
        if self._child is None:
            self._child = self._template.spawn("describe")
        try:
            answer: list[str | None] = self._child.call(OPERATION, payload, TIMEOUT_S)
        except (ChildFailed, ChildError):
            self.close()
            return [None] * len(traces) if len(traces) == 1 else self._one_by_one(module, spec, traces)
        return answer

    def _one_by_one(self, module: str, spec: TargetSpec, traces: Sequence[Any]) -> list[str | None]:
        return [self.ask(module, spec, [trace])[0] for trace in traces]

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spec(target: str) -> TargetSpec | None:
    fields = json.loads(target)
    cores = fields.get("cores", fields.get("num-cores"))
    if fields.get("kind") != KIND or not fields.get("mcpu") or not isinstance(cores, int):
        return None
    mattr = tuple(fields.get("mattr", ()))
    return TargetSpec(KIND, fields["mcpu"], cores, fields.get("model", ""), mattr, fields.get("triple") or TRIPLE)
