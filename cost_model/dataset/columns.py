"""The one columnar form: Parquet, a row for each measured program.

Column          Type                  Meaning
source          dictionary of text    name given at import: whose measurements these are
file, line      dictionary, int64     where the record stood
format, version dictionary            ansor | metaschedule, and the log's own version
device          dictionary            name of the measured hardware where the target does not tell; else ''
target          dictionary            attributes of the target, canonical JSON
workload        dictionary            identity in its source
trace           text                  canonical JSON of steps, or of [instructions, decisions]
latencies_s     list of float64       one value per run; empty when it failed
invalidity      dictionary or null    why it failed
measured_at     float64 or null       UTC seconds
features        bytes or null         statement features, see cost_model.features
quality         dictionary            quick | full | censored; '' where the log does not tell
origin          dictionary            random | search | replay | repeat; '' where the log does not tell
held_out        bool                  of a network that nothing may be trained on
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.formats.record import Record, WorkloadRow

LAYOUT = "2"
"""Raised when a column changes its meaning; files of another layout are refused."""
LAYOUT_KEY = b"crosstune_layout"
ROW_GROUP = 16_384
"""Rows in memory at a time, some 30 MB of traces."""

_WORD = pa.dictionary(pa.int32(), pa.string())
RECORDS = pa.schema(
    [
        ("source", _WORD),
        ("file", _WORD),
        ("line", pa.int64()),
        ("format", _WORD),
        ("version", _WORD),
        ("device", _WORD),
        ("target", _WORD),
        ("workload", _WORD),
        ("trace", pa.string()),
        ("latencies_s", pa.list_(pa.float64())),
        ("invalidity", _WORD),
        ("measured_at", pa.float64()),
        ("features", pa.binary()),
        ("quality", _WORD),
        ("origin", _WORD),
        ("held_out", pa.bool_()),
    ],
    metadata={LAYOUT_KEY: LAYOUT.encode()},
)
WORKLOADS = pa.schema(
    [("source", _WORD), ("workload", pa.string()), ("name", pa.string()), ("module", pa.string())],
    metadata={LAYOUT_KEY: LAYOUT.encode()},
)


class WrongLayout(CostModelError):
    """A Parquet file that is not one of ours, or of another layout."""


def check_layout(path: Path, schema: pa.Schema) -> None:
    """WrongLayout unless the file at `path` has the columns of `schema` in this layout."""
    try:
        found = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise WrongLayout(f"{path} is not a Parquet file: {error}") from None
    layout = (found.metadata or {}).get(LAYOUT_KEY)
    if layout is None:
        raise WrongLayout(f"{path} is not a data set of crosstune; import it with `crosstune dataset import`")
    if layout.decode() != LAYOUT or not found.equals(schema):
        raise WrongLayout(f"{path} has layout {layout.decode()}, this version reads {LAYOUT}; import its sources again")


def rows(table: pa.Table | pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The named columns of each row, as Python values."""
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


class Writer:
    """Appends rows to a Parquet file, a row group at a time, so that memory does not grow with the file."""

    def __init__(self, path: Path, schema: pa.Schema, row_group: int = ROW_GROUP) -> None:
        self._schema, self._row_group = schema, row_group
        self._rows: list[tuple[object, ...]] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.count = 0

    def append(self, row: tuple[object, ...]) -> None:
        """`row`: one value per column, in the order of the schema."""
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= self._row_group:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [_array(values, field) for values, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows.clear()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # else what was written is thrown away by the caller
            self._flush()
        self._writer.close()


def _array(values: Sequence[object], field: pa.Field) -> pa.Array:
    if pa.types.is_dictionary(field.type):
        return pa.array(values, field.type.value_type).dictionary_encode()
    return pa.array(values, field.type)


def record_row(record: Record, source: str, file: str, device: str) -> tuple[object, ...]:
    """A row of RECORDS."""
    return (
        source,
        file,
        record.line,
        record.format,
        record.version,
        device,
        record.target,
        record.workload,
        record.trace,
        record.latencies_s,
        record.invalidity,
        record.measured_at,
        record.features,
        record.quality,
        record.origin,
        record.held_out,
    )


def workload_row(workload: WorkloadRow, source: str) -> tuple[object, ...]:
    """A row of WORKLOADS."""
    return (source, *workload)
