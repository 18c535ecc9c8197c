"""Collecting programs on several targets: what is promised of each workload, and that nothing is done twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_files
from crosstune.cost_model.formats.collected import RECORDS, CollectionFolder
from crosstune.cost_model.formats.sources import record_files
from crosstune.tuner.builder import Builder
from crosstune.tuner.child import Template
from crosstune.tuner.collecting import PASSES, CollectedWorkload, Collector, distinct_workloads
from crosstune.tuner.collecting_here import parse_short
from crosstune.tuner.contracts import ImportedNetwork, TargetRefused, TargetSpec
from crosstune.tuner.rounds import RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import Machine, detect_machine, native
from crosstune.tuner.tasks import import_network

PROGRAMS = 12


@pytest.fixture(scope="module")
def machine(template: Template) -> Machine:
    return detect_machine(template)


@pytest.fixture(scope="module")
def targets(machine: Machine) -> list[TargetSpec]:
    return [native(machine), TargetSpec("llvm", "x86-64-v2", 1, machine.model, (), machine.triple)]


@pytest.fixture(scope="module")
def workload(imported_network: ImportedNetwork) -> CollectedWorkload:
    return max(distinct_workloads({"small": imported_network}, 0), key=lambda one: one.workload.flops)


@pytest.fixture(scope="module")
def rounds(template: Template) -> Iterator[tuple[RoundRunner, Builder, Runner]]:
    builder, runner = Builder(template, 2, 20.0), Runner(template, 20.0)
    made = RoundRunner(Searcher(template), builder, runner, PASSES)
    yield made, builder, runner
    made.close()


def collect(
    folder: Path,
    rounds: tuple[RoundRunner, Builder, Runner],
    workload: CollectedWorkload,
    targets: list[TargetSpec],
    programs: int = PROGRAMS,
) -> list[dict[str, object]]:
    Collector(CollectionFolder(folder), *rounds, programs=programs).collect([workload], targets, lambda: False)
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


@pytest.fixture(scope="module")
def collected(
    rounds: tuple[RoundRunner, Builder, Runner],
    workload: CollectedWorkload,
    targets: list[TargetSpec],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("collection")
    return folder, collect(folder, rounds, workload, targets)


def of(lines: list[dict[str, object]], target: TargetSpec, *origins: str) -> list[dict[str, object]]:
    return [line for line in lines if line["target"] == target.identity and line["origin"] in origins]


def test_half_of_the_programs_come_from_searches_and_half_of_the_others_are_replays(
    collected: tuple[Path, list[dict[str, object]]], targets: list[TargetSpec]
) -> None:
    _, lines = collected
    first, other = targets
    for target in targets:
        assert len([one for one in of(lines, target, "search") if one["latencies_s"]]) == PROGRAMS // 2
    assert len(of(lines, first, "random", "default")) == PROGRAMS // 2
    drawn = {line["schedule"] for line in of(lines, first, "random", "search", "default")}
    replayed = of(lines, other, "replay")
    assert len(replayed) >= PROGRAMS // 2 - 1  # the default may be among those that were drawn
    assert {line["schedule"] for line in replayed} <= drawn
    assert all(line["features"] for line in lines)
    # Two repeats or more for each pass; what a later pass finds clearly slower than the best keeps what it has.
    quick = [len(line["latencies_s"]) for line in lines if line["quality"] == "quick"]  # type: ignore[arg-type]
    assert sum(count >= 2 * PASSES for count in quick) > len(quick) / 2


def test_some_programs_are_measured_a_second_time(
    collected: tuple[Path, list[dict[str, object]]], targets: list[TargetSpec]
) -> None:
    _, lines = collected
    for target in targets:
        before = {line["schedule"] for line in of(lines, target, "random", "search", "replay", "default")}
        again = of(lines, target, "repeat")
        assert again and {line["schedule"] for line in again} <= before


def test_a_collection_that_was_cut_off_goes_on_without_doing_anything_twice(
    collected: tuple[Path, list[dict[str, object]]],
    rounds: tuple[RoundRunner, Builder, Runner],
    workload: CollectedWorkload,
    targets: list[TargetSpec],
    tmp_path: Path,
) -> None:
    folder, lines = collected
    for name in ("workloads.jsonl", "targets.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    whole = (folder / RECORDS).read_bytes()
    # The round that the cut went through ends at a line's end, as an append that was not finished leaves it.
    kept = b"".join(whole.splitlines(keepends=True)[: PROGRAMS // 2])
    (tmp_path / RECORDS).write_bytes(kept + b'{"workload": "cut o')
    again = collect(tmp_path, rounds, workload, targets)
    assert again[: PROGRAMS // 2] == lines[: PROGRAMS // 2]
    for target in targets:
        once = [line["schedule"] for line in of(again, target, "random", "search", "replay", "default")]
        assert len(once) == len(set(once))
    count = Counter((line["target"], line["origin"]) for line in again)
    assert count[targets[0].identity, "search"] >= PROGRAMS // 2
    assert collect(tmp_path, rounds, workload, targets) == again  # finished: nothing is left to do


def test_a_collection_grows_when_more_programs_are_asked_for(
    rounds: tuple[RoundRunner, Builder, Runner],
    workload: CollectedWorkload,
    targets: list[TargetSpec],
    tmp_path: Path,
) -> None:
    few = collect(tmp_path, rounds, workload, targets, PROGRAMS - 4)
    more = collect(tmp_path, rounds, workload, targets, PROGRAMS)
    assert more[: len(few)] == few
    first, other = targets
    assert len(of(more, first, "random", "default")) == PROGRAMS // 2
    assert len(of(more, other, "replay")) > len(of(few, other, "replay"))
    for target in targets:
        assert len([one for one in of(more, target, "search") if one["latencies_s"]]) == PROGRAMS // 2
        once = [line["schedule"] for line in of(more, target, "random", "search", "replay", "default")]
        assert len(once) == len(set(once))


def test_a_collection_becomes_a_data_set(
    collected: tuple[Path, list[dict[str, object]]], workload: CollectedWorkload, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    path, lines = collected
    folder = DatasetFolder(tmp_path / "data")
    reports = import_files(folder, record_files([path]), Origin("here"))
    assert [(report.records, report.faults) for report in reports] == [(len(lines), 0)]
    rows = pq.read_table(folder.record_files()[0]).to_pylist()
    assert {row["origin"] for row in rows} == {line["origin"] for line in lines}
    assert [row["latencies_s"] or None for row in rows] == [line["latencies_s"] for line in lines]
    assert all(row["features"] for row in rows) and not any(row["held_out"] for row in rows)
    modules = pq.read_table(folder.workload_files()[0]).to_pylist()
    assert [row["module"] for row in modules] == [workload.workload.module]


@pytest.mark.parametrize("text", ["znver9:1", "x86-64-v3", "x86-64-v3:0", "x86-64-v3:999"])
def test_a_target_that_this_machine_cannot_stand_for_is_refused(
    machine: Machine, template: Template, text: str
) -> None:
    with pytest.raises(TargetRefused):
        parse_short(text, machine, template)


def test_another_exporters_resnet50_is_held_out(template: Template) -> None:
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
    with template.spawn("import") as child:
        network: ImportedNetwork = import_network(child, path, {}, 120.0)
    convolutions = [
        one for one in distinct_workloads({"resnet50": network}, 0) if one.workload.name.startswith("conv2d")
    ]
    assert len(convolutions) > 10
    left = [one.workload.name for one in convolutions if not one.held_out]
    assert not left
