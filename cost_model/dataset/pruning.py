"""Write a smaller data set: failures, exact duplicates and held-out networks go first, then a method chooses.

Part by part, since a part holds whole files and so, but for mixed logs, whole tasks: memory holds one part. The
programs of the workloads that are left come along.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.columns import Writer
from crosstune.cost_model.dataset.folder import DatasetFolder, FileReport, Part
from crosstune.cost_model.pruning.methods import Method
from crosstune.cost_model.pruning.samples import Indices, Samples
from crosstune.cost_model.tokens.schedule import steps_of, summary, tokens

TASK = ("workload", "target", "device")


@dataclass(frozen=True, slots=True)
class PruningReport:
    """Counts of records; `kept_by_source` and `dropped_by_source` are of those that the method chose among."""

    method: str
    parameters: dict[str, Any]
    seed: int
    records: int
    failures: int
    duplicates: int
    held_out: int
    """Valid and distinct, but of networks that nothing may be trained on."""
    kept: int
    kept_by_source: dict[str, int]
    dropped_by_source: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prune(
    source: DatasetFolder,
    result: DatasetFolder,
    method: Method,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> PruningReport:
    """Write what `method` keeps of `source` into the empty folder `result`; `progress` is told the records read.

    Raises NotEmpty, NoDataset, or WrongLayout for a part of another version.
    """
    result.make_empty()
    counts: Counter[str] = Counter()
    workloads = _workloads(source)
    kept_by, dropped_by = Counter[str](), Counter[str]()
    for number, path in enumerate(source.record_files(), 1):
        columns.check_layout(path, columns.RECORDS)
        table = pq.read_table(path)
        clean = _clean(table, counts)
        chance = np.random.default_rng([seed, number])
        kept = clean[method.keep(_samples(table, clean, method.needs_features), chance)] if clean.size else clean
        chosen = table.take(kept)
        pq.write_table(chosen.cast(columns.RECORDS), result.records_path(number), compression="zstd")
        _write_workloads(chosen, workloads, result.workloads_path(number))
        result.finish(Part(number, _reports(chosen)))
        counts += Counter(records=len(table), kept=len(kept))
        kept_by.update(chosen.column("source").to_pylist())
        dropped_by.update(table.take(np.setdiff1d(clean, kept)).column("source").to_pylist())
        progress(len(table))
    return PruningReport(
        method=method.name,
        parameters=asdict(method),  # type: ignore[call-overload]
        seed=seed,
        **{name: counts[name] for name in ("records", "failures", "duplicates", "held_out", "kept")},
        kept_by_source=dict(kept_by),
        dropped_by_source=dict(dropped_by),
    )


def _clean(table: pa.Table, counts: Counter[str]) -> Indices:
    """Indices of valid programs that may be trained on, the first of each set of equal ones; the others are counted."""
    seen: set[bytes] = set()
    clean: list[int] = []
    names = (*TASK, "trace", "invalidity", "held_out")
    for index, (*task, trace, invalidity, held_out) in enumerate(columns.rows(table, names)):
        if invalidity is not None:
            counts["failures"] += 1
            continue
        key = hashlib.blake2b("\0".join([*task, trace]).encode(), digest_size=16).digest()
        if key in seen:
            counts["duplicates"] += 1
            continue
        seen.add(key)
        if held_out:
            counts["held_out"] += 1
        else:
            clean.append(index)
    return np.asarray(clean, dtype=np.int64)


def _workloads(source: DatasetFolder) -> dict[tuple[str, str], tuple[object, ...]]:
    """Rows of WORKLOADS by source and workload; the program with each, where there is one."""
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for path in source.workload_files():
        columns.check_layout(path, columns.WORKLOADS)
        for row in columns.rows(pq.read_table(path), columns.WORKLOADS.names):
            found.setdefault((row[0], row[1]), row)
    return found


def _write_workloads(kept: pa.Table, workloads: dict[tuple[str, str], tuple[object, ...]], path: Path) -> None:
    """Those that `kept` names and no earlier part has taken: they are taken from `workloads`."""
    wanted = sorted(set(columns.rows(kept, ("source", "workload"))) & set(workloads))
    if wanted:
        with Writer(path, columns.WORKLOADS) as writer:
            for key in wanted:
                writer.append(workloads.pop(key))


def _samples(table: pa.Table, clean: Indices, with_features: bool) -> Samples:
    rows = table.take(clean)
    numbers: dict[tuple[str, ...], int] = {}
    tasks = np.array([numbers.setdefault(task, len(numbers)) for task in columns.rows(rows, TASK)], dtype=np.int64)
    latencies_s = np.array([float(np.mean(runs)) for runs in rows.column("latencies_s").to_pylist()])
    fastest_s = np.full(len(numbers), np.inf)
    np.minimum.at(fastest_s, tasks, latencies_s)
    features = np.zeros((len(rows), 0), dtype=np.float32)
    if with_features:
        traces = columns.rows(rows, ("format", "trace"))
        features = np.stack([summary(tokens(steps_of(kind, trace))) for kind, trace in traces])
    return Samples(tasks, fastest_s[tasks] / latencies_s, features)


def _reports(kept: pa.Table) -> list[FileReport]:
    counts = Counter(columns.rows(kept, ("source", "file")))
    return [FileReport(source, file, 0, records=count) for (source, file), count in counts.items()]
