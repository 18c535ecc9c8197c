"""Data sets: imported once, whatever breaks in between, and counted as they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crosstune.cost_model.dataset import columns, importing
from crosstune.cost_model.dataset.columns import Writer, WrongLayout, check_layout
from crosstune.cost_model.dataset.folder import DatasetFolder, NoDataset, Part
from crosstune.cost_model.dataset.importing import (
    AlreadyImported,
    Origin,
    import_dataset,
    import_files,
    import_stream,
)
from crosstune.cost_model.dataset.statistics import count
from crosstune.cost_model.formats.record import Fault, Item, Record, WorkloadRow
from crosstune.cost_model.formats.sources import SourceFile, record_files

DATA = Path(__file__).parent / "data"
ORIGIN = Origin("public")


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(tmp_path / "dataset")


def rows(folder: DatasetFolder) -> list[dict[str, Any]]:
    return [row for path in folder.record_files() for row in pq.read_table(path).to_pylist()]


def logs(folder: Path, count: int, lines: int = 3) -> list[SourceFile]:
    line = (DATA / "bennu_x86_matmul.ansor.json").read_text().splitlines()[0]
    for number in range(count):
        (folder / f"{number}.json").write_text((line + "\n") * lines)
    return record_files([folder / f"{number}.json" for number in range(count)])


def test_every_public_log_is_imported_with_where_it_stood(folder: DatasetFolder) -> None:
    reports = import_files(folder, record_files([DATA]), Origin("public", device="lab"))
    found = rows(folder)
    assert sum(report.records for report in reports) == len(found) == 28
    assert sum(report.failures for report in reports) == 4
    assert not any(report.faults for report in reports)
    assert {row["format"] for row in found} == {"ansor", "metaschedule"}
    assert {row["device"] for row in found} == {"lab"}
    first = next(row for row in found if row["file"] == "data/bennu_x86_matmul.ansor.json" and row["line"] == 2)
    given = json.loads((DATA / "bennu_x86_matmul.ansor.json").read_text().splitlines()[1])
    assert first["latencies_s"] == given["r"][0]
    assert json.loads(first["trace"]) == given["i"][1][1]
    (programs,) = folder.workload_files()
    assert pq.read_table(programs).num_rows == 3


def test_a_file_is_imported_once_and_a_longer_one_again(folder: DatasetFolder, tmp_path: Path) -> None:
    assert len(import_files(folder, logs(tmp_path, 2), ORIGIN)) == 2
    assert import_files(folder, logs(tmp_path, 2), ORIGIN) == []
    assert len(import_files(folder, logs(tmp_path, 3), ORIGIN)) == 1
    assert len(import_files(folder, logs(tmp_path, 1, lines=4), ORIGIN)) == 1
    assert len(import_files(folder, logs(tmp_path, 1, lines=4), Origin("another"))) == 1
    assert len(rows(folder)) == 3 + 3 + 3 + 4 + 4


@pytest.mark.parametrize("dies_at", range(1, 8))
def test_an_import_that_dies_goes_on_without_losing_or_doubling(
    folder: DatasetFolder, tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, calls = logs(tmp_path, 6), 0
    real = importing.read_file

    def dying(file: SourceFile, progress: Any) -> Iterator[Item]:
        nonlocal calls
        calls += 1
        for item in real(file, progress):
            if calls == dies_at:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(importing, "read_file", dying)
    if dies_at <= len(files):
        with pytest.raises(KeyboardInterrupt):
            import_files(folder, files, ORIGIN, part_records=6)
    monkeypatch.setattr(importing, "read_file", real)
    import_files(folder, files, ORIGIN, part_records=6)
    assert sorted((row["file"], row["line"]) for row in rows(folder)) == [
        (f"{number}.json", line) for number in range(6) for line in (1, 2, 3)
    ]
    assert {path.name for path in folder.path.glob("*.parquet")} == {path.name for path in folder.record_files()}


def test_a_part_that_was_written_but_not_journalled_does_not_count(folder: DatasetFolder, tmp_path: Path) -> None:
    files = logs(tmp_path, 2)
    import_files(folder, files[:1], ORIGIN)
    journal = folder.path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])  # the power failed in the middle of the line
    assert folder.parts() == []
    import_files(folder, files, ORIGIN)
    assert len(rows(folder)) == 6
    assert journal.read_bytes().count(b"\n") == len(folder.parts()) == 1


def test_memory_holds_a_row_group_whatever_the_length_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with Writer(path, columns.WORKLOADS, row_group=10) as writer:
        for number in range(35):
            writer.append(("s", str(number), "", "{}"))
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [10, 10, 10, 5]
    assert [row["workload"] for row in pq.read_table(path).to_pylist()] == [str(number) for number in range(35)]


def test_what_was_skipped_is_counted_and_the_first_are_told(folder: DatasetFolder, tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text("{\n" * 9 + (DATA / "tvm_ci_matmul.json").read_text())
    (report,) = import_files(folder, record_files([path]), ORIGIN)
    assert (report.records, report.faults, len(report.examples)) == (1, 9, 5)
    assert report.examples[0].startswith("line 1: it is not JSON")
    assert next(folder.reports()).faults == 9


def test_progress_comes_to_the_size_of_all_files(folder: DatasetFolder, tmp_path: Path) -> None:
    files = logs(tmp_path, 3)
    seen: list[int] = []
    import_files(folder, files, ORIGIN, seen.append)
    assert sum(seen) == sum(file.path.stat().st_size for file in files)


def test_a_database_is_imported_once(folder: DatasetFolder) -> None:
    record = Record("metaschedule", "crosstune", "w", '{"kind":"llvm"}', "[[],[]]", (0.5,), None, 1.0, 1)
    items: list[Item] = [WorkloadRow("w", "conv2d", "{}"), record, Fault(2, "lost")]
    report = import_stream(folder, "database", items, ORIGIN)
    assert (report.records, report.faults) == (1, 1)
    with pytest.raises(AlreadyImported, match="another folder"):
        import_stream(folder, "database", items, ORIGIN)
    assert len(rows(folder)) == 1


def test_a_data_set_is_added_to_another_once(folder: DatasetFolder, tmp_path: Path) -> None:
    own = DatasetFolder(tmp_path / "own")
    import_files(own, logs(tmp_path, 2), Origin("own"))
    import_files(folder, record_files([DATA]), ORIGIN)
    before = rows(own)
    assert sum(report.records for report in import_dataset(own, folder)) == 28
    assert import_dataset(own, folder) == []
    assert rows(own) == before + rows(folder)
    assert len(own.workload_files()) == 1
    folder.finish(Part(2, []))  # as pruning leaves where nothing is kept
    parts = own.parts()
    assert import_dataset(own, folder) == [] and own.parts() == parts
    assert own.totals() == folder.totals() + Counter(files=2, records=6)
    with pytest.raises(NoDataset):
        import_dataset(own, DatasetFolder(tmp_path / "empty"))


def test_statistics_count_by_source_and_target(folder: DatasetFolder) -> None:
    import_files(folder, record_files([DATA]), ORIGIN)
    found = count(folder, vocabulary=True)
    assert found["records"] == sum(group["records"] for group in found["groups"]) == 28
    assert found["failures"] == sum(group["failures"] for group in found["groups"]) == 4
    arches = {json.loads(group["target"]).get("arch") for group in found["groups"]}
    assert {"sm_80", "sm_86"} <= arches
    assert all(group["other_steps_share"] < 0.01 for group in found["groups"])
    assert all(group["other_steps_share"] is None for group in count(folder)["groups"])


def test_a_folder_without_a_data_set_names_the_command_that_makes_one(folder: DatasetFolder) -> None:
    with pytest.raises(NoDataset, match="crosstune dataset import"):
        count(folder)


def test_files_of_another_layout_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(WrongLayout, match="not a Parquet file"):
        check_layout(path, columns.RECORDS)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(WrongLayout, match="not a data set of crosstune"):
        check_layout(path, columns.RECORDS)
    Writer(path, columns.RECORDS).close()
    check_layout(path, columns.RECORDS)
    monkeypatch.setattr(columns, "LAYOUT", "3")
    with pytest.raises(WrongLayout, match="has layout 2, this version reads 3"):
        check_layout(path, columns.RECORDS)
