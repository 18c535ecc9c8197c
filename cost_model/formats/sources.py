"""Which files of what the user names hold records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.formats import collected, metaschedule

ENDINGS = (".json", ".jsonl", ".ndjson", ".log")
COMPRESSED = ".gz"
NOT_RECORDS = (metaschedule.WORKLOADS, collected.WORKLOADS, collected.TARGETS)
LEFT_OUT = frozenset({"network_info", "to_measure_programs"})
"""TenSet's folders of pickles, which are never opened, and of programs that were not measured."""


class NoRecords(CostModelError):
    """What was named holds no file of records, or is not there."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: Path
    name: str
    """Relative to what the user named, with `/`: the same wherever the folder lies."""


def record_files(named: Sequence[Path]) -> list[SourceFile]:
    """All files of records in files and folders, in a fixed order; NoRecords when one of them holds none."""
    found: dict[Path, SourceFile] = {}
    for path in named:
        files = list(_files_in(path)) if path.is_dir() else [SourceFile(path, path.name)] if path.is_file() else []
        if not files:
            raise NoRecords(f"{path} {_missing(path)}")
        for file in files:
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _files_in(folder: Path) -> Iterator[SourceFile]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if _is_record_file(name) and path.is_file():
                yield SourceFile(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")


def _is_record_file(name: str) -> bool:
    return name.removesuffix(COMPRESSED).endswith(ENDINGS) and not any(other in name for other in NOT_RECORDS)


def _missing(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    return f"holds no records: files that end in {', '.join(ENDINGS)}, also compressed ({COMPRESSED})"
