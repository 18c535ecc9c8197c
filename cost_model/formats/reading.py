"""One file of records of any known format, line by line; what is wrong is told and skipped, never fatal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crosstune.cost_model.formats import ansor, collected, metaschedule
from crosstune.cost_model.formats.lines import Damaged, NumberedLines
from crosstune.cost_model.formats.record import Fault, Item, Malformed, Record, WorkloadRow
from crosstune.cost_model.formats.sources import SourceFile

PROGRESS_LINES = 5_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a record's line does not tell by itself."""

    source: str
    """The file's name."""
    workloads: Sequence[str] | None = None
    """Identities by index, of a MetaSchedule database with its workload file."""
    told: collected.Beside = field(default_factory=collected.Beside)


Progress = Callable[[int], None]
"""Called now and then with the bytes that were read since the last call."""


def read_file(file: SourceFile, progress: Progress = lambda _: None) -> Iterator[Item]:
    """The workloads that lie beside a file of records, then its records, and a Fault for each line that is neither.

    Formats may be mixed within a file. Raises OSError when it cannot be opened.
    """
    path = metaschedule.workload_file(file.path)
    names: list[str] | None = None
    if path is not None:
        names = []
        yield from _workloads(path, names)
    told = collected.Beside()
    for fact in collected.read_beside(file.path):
        if isinstance(fact, collected.Beside):
            told = fact
        else:
            yield fact
    with NumberedLines(file.path) as lines:
        reader = _records(lines, Surroundings(file.name, names, told))
        read_bytes = 0
        for count, item in enumerate(reader, 1):
            yield item
            if count % PROGRESS_LINES == 0:
                progress(lines.position_bytes - read_bytes)
                read_bytes = lines.position_bytes
        progress(lines.position_bytes - read_bytes)


def _workloads(path: Path, names: list[str]) -> Iterator[WorkloadRow | Fault]:
    """Fills `names` with identities by index, '' where a line is damaged."""
    try:
        for row in metaschedule.read_workloads(path):
            names.append("" if isinstance(row, Fault) else row.workload)
            yield row if isinstance(row, WorkloadRow) else replace(row, problem=f"{path.name}: {row.problem}")
    except Damaged as error:
        yield Fault(error.line, f"{path.name}: {error.problem}", ends_file=True)


def _records(lines: NumberedLines, around: Surroundings) -> Iterator[Record | Fault]:
    try:
        for number, line in lines:
            try:
                yield parse_line(line, number, around)
            except Malformed as error:
                yield Fault(number, str(error))
    except Damaged as error:
        yield Fault(error.line, error.problem, ends_file=True)


def parse_line(line: bytes, number: int, around: Surroundings) -> Record:
    """The record of one line; Malformed says why it is none."""
    try:
        value: Any = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON: {error}") from None
    if ansor.is_record(value):
        return ansor.parse(value, number)
    if metaschedule.is_record(value):
        return metaschedule.parse(value, number, around.workloads, around.source)
    if collected.is_record(value):
        return collected.parse(value, number, around.told)
    raise Malformed(_foreign(value))


def _foreign(value: Any) -> str:
    if metaschedule.is_workload(value):
        return "it is a MetaSchedule workload, not a record; give the file of tuning records beside it"
    if isinstance(value, dict) and {"input", "config"} <= value.keys():
        return "it is an AutoTVM record: what its knobs do is only known to the template that was tuned"
    return "it is neither an Ansor, a MetaSchedule nor a collected record"
