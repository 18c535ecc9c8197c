"""Pruning: every method keeps its share, and what it promises to keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.columns import Writer
from crosstune.cost_model.dataset.folder import DatasetFolder, FileReport, NotEmpty, Part
from crosstune.cost_model.dataset.importing import Origin, import_stream
from crosstune.cost_model.dataset.pruning import prune
from crosstune.cost_model.dataset.reading import modules
from crosstune.cost_model.dataset.statistics import count
from crosstune.cost_model.formats.record import Item, Record, WorkloadRow
from crosstune.cost_model.pruning.methods import (
    METHODS,
    LabelStratified,
    NearDuplicates,
    RandomShare,
    StratifiedDistinct,
    TaskDiverse,
)
from crosstune.cost_model.pruning.samples import Samples
from crosstune.cost_model.tokens.schedule import SUMMARY_WIDTH, summary, tokens
from crosstune.cost_model.tokens.vocabulary import Kind, Step

SHARE = 0.25


def samples(sizes: list[int], seed: int = 0) -> Samples:
    chance = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    return Samples(tasks, chance.random(len(tasks)), chance.random((len(tasks), 6)).astype(np.float32))


@pytest.mark.parametrize("name", sorted(METHODS))
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_every_method_keeps_about_its_share_of_different_programs(name: str, sizes: list[int], seed: int) -> None:
    given_samples = samples(sizes, seed)
    method = METHODS[name](SHARE)
    kept = method.keep(given_samples, np.random.default_rng(seed))
    again = method.keep(given_samples, np.random.default_rng(seed))
    assert kept.tolist() == sorted(set(kept.tolist())) == again.tolist()
    assert set(kept.tolist()) <= set(range(len(given_samples)))
    assert abs(len(kept) - SHARE * len(given_samples)) <= max(len(sizes), 0.5 * len(given_samples))
    if name != "random":
        assert set(given_samples.tasks[kept]) == set(given_samples.tasks)


@pytest.mark.parametrize(
    "name", ["label-stratified", "stratified-distinct", "near-duplicates", "representative-diverse-uncertain"]
)
def test_the_fastest_of_each_task_stays(name: str) -> None:
    given_samples = samples([40, 25, 8])
    kept = set(METHODS[name](SHARE).keep(given_samples, np.random.default_rng(1)).tolist())
    for group in given_samples.by_task():
        assert int(group[np.argmax(given_samples.labels[group])]) in kept


def test_large_tasks_are_cut_and_small_ones_stay_whole() -> None:
    given_samples = samples([100, 100, 4])
    kept = TaskDiverse(0.5).keep(given_samples, np.random.default_rng(0))
    assert np.bincount(given_samples.tasks[kept]).tolist() == [49, 49, 4]


def test_strata_keep_the_shape_of_the_labels() -> None:
    given_samples = samples([1000])
    kept = LabelStratified(0.1).keep(given_samples, np.random.default_rng(0))
    assert len(kept) == 100
    assert np.histogram(given_samples.labels[kept], 5, (0, 1))[0].min() >= 15


def test_a_program_that_is_kept_for_one_task_is_not_kept_for_another_while_there_are_others() -> None:
    """Two targets, the same forty programs on each, in the same order of speed."""
    features = np.tile(np.arange(40, dtype=np.float32)[:, None], (2, 1))
    given_samples = Samples(np.repeat([0, 1], 40), np.tile(np.linspace(1, 0, 40), 2), features)
    kept = StratifiedDistinct(0.5).keep(given_samples, np.random.default_rng(0))
    first, second = set(kept[kept < 40].tolist()), set((kept[kept >= 40] - 40).tolist())
    assert len(first) == len(second) == 20
    assert first & second == {0}  # the fastest stays everywhere


def test_near_duplicates_go_first() -> None:
    features = np.repeat(np.eye(5, dtype=np.float32), 20, axis=0)
    features += np.random.default_rng(0).normal(0, 1e-3, features.shape).astype(np.float32)
    given_samples = Samples(np.zeros(100, np.int64), np.linspace(0, 1, 100), features)
    kept = NearDuplicates(0.05).keep(given_samples, np.random.default_rng(0))
    assert sorted(kept // 20) == [0, 1, 2, 3, 4]


def test_a_schedule_is_summed_up_by_kind() -> None:
    steps = [Step(Kind.SPLIT, 0, (1.0, 2.0)), Step(Kind.SPLIT, 3, (0.5,)), Step(Kind.PARALLEL, 0, ())]
    found = summary(tokens(steps))
    rows = found.reshape(len(Kind), -1)
    assert len(found) == SUMMARY_WIDTH
    assert rows[Kind.SPLIT, :3].tolist() == [2.0, 1.5, 2.0]
    assert rows[Kind.PARALLEL, 0] == 1.0
    assert rows.sum() == 6.5


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    """Two parts of one task each: 20 programs, of which two are the same, and two failures."""
    found = DatasetFolder(tmp_path / "whole")
    found.path.mkdir()
    for number in (1, 2):
        with Writer(found.records_path(number), columns.RECORDS) as writer:
            for index in range(22):
                steps = [["SP", 1, 0, 64, [max(1, index)], 1]]
                failed = index >= 20
                row: list[Any] = [f"source {number}", f"{number}.json", index, "ansor", "v0.6", "", '{"kind":"llvm"}']
                row += ["w", json.dumps(steps), [] if failed else [0.1 * (1 + index)], "compile" if failed else None]
                writer.append((*row, None, None, "", "", False))
        found.finish(Part(number, [FileReport(f"source {number}", f"{number}.json", 1, records=22, failures=2)]))
    return found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_pruned_data_set_holds_whole_rows_and_says_what_was_dropped(
    folder: DatasetFolder, tmp_path: Path, name: str
) -> None:
    result = DatasetFolder(tmp_path / "pruned")
    report = prune(folder, result, METHODS[name](0.5), seed=1)
    assert (report.records, report.failures, report.duplicates) == (44, 4, 2)
    kept = [row for path in result.record_files() for row in pq.read_table(path).to_pylist()]
    whole = [row for path in folder.record_files() for row in pq.read_table(path).to_pylist()]
    assert len(kept) == report.kept == sum(report.kept_by_source.values()) == result.totals()["records"]
    assert report.kept + sum(report.dropped_by_source.values()) == 38
    assert all(row in whole and row["invalidity"] is None for row in kept)
    assert report.parameters["share"] == 0.5
    assert count(result)["records"] == report.kept  # it is a data set like any other


def test_a_pruned_data_set_has_the_programs_of_its_workloads_and_nothing_that_is_held_out(tmp_path: Path) -> None:
    whole, result = DatasetFolder(tmp_path / "whole"), DatasetFolder(tmp_path / "pruned")
    for source in ("one", "two"):
        items: list[Item] = [WorkloadRow(name, "conv2d", f"{source} {name}") for name in ("w", "failed", "held out")]
        for number in range(10):
            record = Record("ansor", "v0.6", "w", "{}", f'[["PR",0,0,"{number}"]]', (0.1 + number,), None, None, number)
            items += [record, record._replace(workload="failed", latencies_s=(), invalidity="compile")]
            items.append(record._replace(workload="held out", held_out=True))
        import_stream(whole, "log", items, Origin(source))
    report = prune(whole, result, RandomShare(0.5), seed=0)
    assert (report.records, report.failures, report.held_out, report.kept) == (60, 20, 20, 10)
    assert modules(result) == {("one", "w"): "one w", ("two", "w"): "two w"}
    assert not any(row["held_out"] for path in result.record_files() for row in pq.read_table(path).to_pylist())


def test_a_folder_that_holds_a_data_set_is_not_written_over(folder: DatasetFolder) -> None:
    with pytest.raises(NotEmpty, match="name a new folder"):
        prune(folder, folder, RandomShare(0.5), seed=1)
