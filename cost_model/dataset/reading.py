"""Read a data set: its records in batches, and the programs of its workloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.folder import DatasetFolder


def batches(folder: DatasetFolder, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of all records. Raises NoDataset, or WrongLayout for a part of another version."""
    for path in folder.record_files():
        columns.check_layout(path, columns.RECORDS)
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(columns=list(names))


def modules(folder: DatasetFolder) -> dict[tuple[str, str], str]:
    """TVM's JSON of each workload's program, by source and workload, where the data set holds it."""
    found = {}
    for path in folder.workload_files():
        table = pq.read_table(path, columns=["source", "workload", "module"])
        for source, workload, module in columns.rows(table, ("source", "workload", "module")):
            if module:
                found[source, workload] = module
    return found


def held_out_workloads(folder: DatasetFolder) -> frozenset[str]:
    """Workloads of a data set that nothing may be trained on."""
    rows = (batch.to_pydict() for batch in batches(folder, ("workload", "held_out")))
    return frozenset(
        workload for row in rows for workload, held in zip(row["workload"], row["held_out"], strict=True) if held
    )
