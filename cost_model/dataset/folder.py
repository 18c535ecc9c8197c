"""A data set is a folder: parts of records and of workloads, and a journal that says which parts count.

    journal.jsonl                 one line per finished part: its number, its files, what they held, what was wrong
    records-00001.parquet         columns.RECORDS
    workloads-00001.parquet       columns.WORKLOADS, where the sources hold programs

A part that is not in the journal was being written when the process died: it is ignored and written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.formats.lines import drop_cut_line
from crosstune.cost_model.formats.record import Fault

JOURNAL = "journal.jsonl"
EXAMPLES = 5
"""Faults of a file that are kept with their line and text; the rest are counted."""


class NoDataset(CostModelError):
    """A folder without a journal."""


class NotEmpty(CostModelError):
    """The folder to write to holds a data set already."""


@dataclass(slots=True)
class FileReport:
    """What one source file held."""

    source: str
    file: str
    size_bytes: int
    records: int = 0
    failures: int = 0
    """Records without a latency; they are counted in `records` too."""
    faults: int = 0
    """Lines that were skipped."""
    examples: list[str] = field(default_factory=list)

    def add_fault(self, fault: Fault) -> None:
        self.faults += 1
        if len(self.examples) < EXAMPLES or fault.ends_file:
            end = "; the rest of the file is lost" if fault.ends_file else ""
            self.examples.append(f"line {fault.line}: {fault.problem}{end}")

    @property
    def identity(self) -> tuple[str, str, int]:
        """A file is imported once: known by source, name and size."""
        return self.source, self.file, self.size_bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Parquet files that were finished together, and the reports of the source files in them."""

    number: int
    reports: list[FileReport]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Part:
        return cls(value["number"], [FileReport(**report) for report in value["reports"]])


class DatasetFolder:
    """The folder at `path`; made when something is first written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make_empty(self) -> None:
        """Make the folder; NotEmpty when it holds a data set already."""
        if self.parts():
            raise NotEmpty(f"{self.path} already holds a data set; name a new folder")
        self.path.mkdir(parents=True, exist_ok=True)

    def parts(self) -> list[Part]:
        """Finished parts; a last line that was cut off by a crash is no part."""
        journal = self.path / JOURNAL
        if not journal.exists():
            return []
        lines = journal.read_text().split("\n")
        return [Part.from_json(json.loads(line)) for line in lines[:-1] if line]

    def record_files(self) -> list[Path]:
        """Parquet files of records, oldest first. NoDataset when there is none here."""
        return [self.records_path(part.number) for part in self._some_parts()]

    def workload_files(self) -> list[Path]:
        return [path for part in self._some_parts() if (path := self.workloads_path(part.number)).exists()]

    def records_path(self, number: int) -> Path:
        return self.path / f"records-{number:05}.parquet"

    def workloads_path(self, number: int) -> Path:
        return self.path / f"workloads-{number:05}.parquet"

    def finish(self, part: Part) -> None:
        """Add a part whose files are complete: from here on it counts, whatever happens."""
        for path in (self.records_path(part.number), self.workloads_path(part.number)):
            if path.exists():
                _sync(path)
        drop_cut_line(self.path / JOURNAL)
        with (self.path / JOURNAL).open("a") as journal:
            journal.write(json.dumps(part.to_json(), separators=(",", ":")) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        _sync(self.path)

    def totals(self) -> Counter[str]:
        """records, failures, faults and files over all parts."""
        counts: Counter[str] = Counter()
        for report in self.reports():
            counts += Counter(files=1, records=report.records, failures=report.failures, faults=report.faults)
        return counts

    def fingerprint(self) -> str:
        """Names what the data set holds: sha256 (hex) of its journal."""
        return hashlib.sha256((self.path / JOURNAL).read_bytes()).hexdigest()

    def reports(self) -> Iterator[FileReport]:
        for part in self.parts():
            yield from part.reports

    def _some_parts(self) -> list[Part]:
        parts = self.parts()
        if not parts:
            raise NoDataset(f"{self.path} holds no data set; `crosstune dataset import` makes one")
        return parts


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
