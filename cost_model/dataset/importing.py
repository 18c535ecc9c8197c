"""Import measured programs into a data set, in constant memory; killed anywhere, it goes on after the last part."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.columns import Writer, record_row, workload_row
from crosstune.cost_model.dataset.folder import DatasetFolder, FileReport, Part
from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.formats.reading import Progress, read_file
from crosstune.cost_model.formats.record import Fault, Item, Record
from crosstune.cost_model.formats.sources import SourceFile

PART_RECORDS = 500_000
"""A part ends with the file that passes this: what a crash costs at most is a minute of work, or one large file."""
WORKLOAD_ROW_GROUP = 64
"""A large program takes megabytes."""


class AlreadyImported(CostModelError):
    """A database can be imported once into a data set: its records change, and would stand there twice."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose records these are. `device` names the hardware where a target only says `llvm`."""

    source: str
    device: str = ""


def import_files(
    folder: DatasetFolder,
    files: Sequence[SourceFile],
    origin: Origin,
    progress: Progress = lambda _: None,
    part_records: int = PART_RECORDS,
) -> list[FileReport]:
    """Add every file that is not there yet, by source, name and size; answers what each new one held.

    Raises OSError when a file cannot be opened or the disk is full: finished parts stay, the unfinished one does not.
    """
    known = {report.identity for report in folder.reports()}
    waiting = (file for file in files if (origin.source, file.name, file.path.stat().st_size) not in known)
    reports: list[FileReport] = []
    file = next(waiting, None)
    while file is not None:
        with _new_part(folder, origin) as part:
            while file is not None and part.record_count < part_records:
                part.add(FileReport(origin.source, file.name, file.path.stat().st_size), read_file(file, progress))
                file = next(waiting, None)
        reports += part.reports
    return reports


def import_stream(folder: DatasetFolder, name: str, items: Iterable[Item], origin: Origin) -> FileReport:
    """Add all of a database as one part; AlreadyImported when the data set holds this source's `name`."""
    if any((report.source, report.file) == (origin.source, name) for report in folder.reports()):
        raise AlreadyImported(f"{folder.path} already holds {name} of {origin.source}; import it into another folder")
    with _new_part(folder, origin) as part:
        part.add(FileReport(origin.source, name, 0), items)
    return part.reports[0]


def import_dataset(folder: DatasetFolder, other: DatasetFolder) -> list[FileReport]:
    """Add the parts of another data set whose files are not there yet; raises NoDataset or WrongLayout."""
    known = {report.identity for report in folder.reports()}
    added: list[FileReport] = []
    other.record_files()  # NoDataset
    for part in other.parts():
        if not part.reports or any(report.identity in known for report in part.reports):
            continue  # a pruned part may hold nothing
        number = _next_number(folder)
        folder.path.mkdir(parents=True, exist_ok=True)
        columns.check_layout(other.records_path(part.number), columns.RECORDS)
        shutil.copyfile(other.records_path(part.number), folder.records_path(number))
        if other.workloads_path(part.number).exists():
            columns.check_layout(other.workloads_path(part.number), columns.WORKLOADS)
            shutil.copyfile(other.workloads_path(part.number), folder.workloads_path(number))
        folder.finish(Part(number, part.reports))
        added += part.reports
    return added


def _next_number(folder: DatasetFolder) -> int:
    return 1 + max((part.number for part in folder.parts()), default=0)


@contextmanager
def _new_part(folder: DatasetFolder, origin: Origin) -> Iterator[_PartWriter]:
    """A part that counts when the block has ended, and leaves nothing when it raises."""
    number = _next_number(folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    records_path, workloads_path = folder.records_path(number), folder.workloads_path(number)
    try:
        with (
            Writer(records_path, columns.RECORDS) as records,
            Writer(workloads_path, columns.WORKLOADS, WORKLOAD_ROW_GROUP) as workloads,
        ):
            part = _PartWriter(origin, records, workloads)
            yield part
    except BaseException:
        records_path.unlink(missing_ok=True)
        workloads_path.unlink(missing_ok=True)
        raise
    if not workloads.count:
        workloads_path.unlink()
    folder.finish(Part(number, part.reports))


class _PartWriter:
    """Rows of one part, and what each of its files held."""

    def __init__(self, origin: Origin, records: Writer, workloads: Writer) -> None:
        self._origin, self._records, self._workloads = origin, records, workloads
        self.reports: list[FileReport] = []

    @property
    def record_count(self) -> int:
        return self._records.count

    def add(self, report: FileReport, items: Iterable[Item]) -> None:
        """Write everything that a file holds, and note it in its `report`."""
        self.reports.append(report)
        for item in items:
            if isinstance(item, Record):
                self._records.append(record_row(item, self._origin.source, report.file, self._origin.device))
                report.records += 1
                report.failures += item.invalidity is not None
            elif isinstance(item, Fault):
                report.add_fault(item)
            else:
                self._workloads.append(workload_row(item, self._origin.source))
