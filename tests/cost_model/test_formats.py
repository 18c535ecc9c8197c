"""Logs of other tools: real lines come out right, wrong ones are told and skipped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.cost_model.formats import lines as numbered
from crosstune.cost_model.formats import metaschedule
from crosstune.cost_model.formats.lines import Damaged, NumberedLines
from crosstune.cost_model.formats.reading import Surroundings, parse_line, read_file
from crosstune.cost_model.formats.record import Fault, Item, Malformed, Record, WorkloadRow
from crosstune.cost_model.formats.sources import NoRecords, SourceFile, record_files
from crosstune.cost_model.formats.target_text import parse_target

DATA = Path(__file__).parent / "data"
ANSOR_LINE = (DATA / "bennu_x86_matmul.ansor.json").read_text().splitlines()[0]


def read(path: Path) -> list[Item]:
    return list(read_file(SourceFile(path, path.name)))


def records(path: Path) -> list[Record]:
    return [item for item in read(path) if isinstance(item, Record)]


def faults(path: Path) -> list[Fault]:
    return [item for item in read(path) if isinstance(item, Fault)]


def written(folder: Path, *lines: str, name: str = "log.json") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def changed(**parts: Any) -> str:
    return json.dumps(json.loads(ANSOR_LINE) | parts)


@pytest.mark.parametrize(
    ("name", "version", "count", "target"),
    [
        ("bennu_x86_matmul.ansor.json", "v0.6", 4, {"kind": "llvm", "keys": ["cpu"], "num-cores": 8}),
        ("tvm_ci_matmul.json", "v0.3", 1, {"kind": "llvm", "keys": ["cpu"], "num-cores": 18}),
        ("tvm_ci_sparse_dense.json", "v0.6", 1, {"kind": "llvm", "keys": ["cpu"], "num-cores": 6}),
        (
            "tvm_ci_resnet50.json",
            "v0.5",
            6,
            {"kind": "llvm", "keys": ["cpu"], "mcpu": "core-avx2", "num-cores": 8},
        ),
    ],
)
def test_ansor_logs_of_every_version_are_read(name: str, version: str, count: int, target: dict[str, Any]) -> None:
    found = records(DATA / name)
    assert not faults(DATA / name)
    assert len(found) == count
    for record in found:
        assert (record.format, record.version, record.invalidity) == ("ansor", version, None)
        assert json.loads(record.target) == target
        assert all(0 < latency_s < 1 for latency_s in record.latencies_s)


def test_an_ansor_line_keeps_its_runs_its_key_and_its_steps() -> None:
    record = records(DATA / "bennu_x86_matmul.ansor.json")[0]
    given = json.loads(ANSOR_LINE)
    assert record.latencies_s == tuple(given["r"][0])
    assert record.measured_at == given["r"][3]
    assert json.loads(record.workload) == ["ansor_mm", 1000, 800, 700, "float32"]
    assert json.loads(record.trace) == given["i"][1][1]
    assert record.line == 1


def test_the_same_workload_has_the_same_key_on_two_gpus() -> None:
    a100, rtx = (records(DATA / f"bennu_{name}_conv2d.ansor.json") for name in ("a100", "rtx3080"))
    assert {record.workload for record in a100} & {record.workload for record in rtx}
    assert [json.loads(one[0].target)["arch"] for one in (a100, rtx)] == ["sm_80", "sm_86"]


def test_comments_and_blank_lines_are_no_faults(tmp_path: Path) -> None:
    path = written(tmp_path, "# a comment", "", ANSOR_LINE, "   ", ANSOR_LINE)
    assert [record.line for record in records(path)] == [3, 5]
    assert not faults(path)


def test_failures_are_records_with_a_reason() -> None:
    found = records(DATA / "bennu_all_errors.ansor.json")
    assert [(record.latencies_s, record.invalidity) for record in found] == [((), "compile")] * 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [(1, "replay"), (4, "runtime"), (5, "correctness"), (6, "timeout"), (7, "timeout"), (99, "unknown")],
)
def test_ansor_error_numbers_become_reasons(error: int, reason: str) -> None:
    record = parse_line(changed(r=[[1e10], error, 1.0, 5]).encode(), 1, Surroundings(""))
    assert (record.latencies_s, record.invalidity) == ((), reason)


def test_a_sentinel_without_an_error_number_is_a_failure_too() -> None:
    assert parse_line(changed(r=[[1e10], 0, 1.0, 5]).encode(), 1, Surroundings("")).invalidity == "unknown"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "neither"),
        ("17", "neither"),
        (json.dumps({"input": [], "config": {}, "result": []}), "AutoTVM"),
        (json.dumps(["hash", "text"]), "workload, not a record"),
        (changed(i=[]), "[task, state]"),
        (changed(i=[["key"], [[], []]]), "workload key and a target"),
        (changed(i=[["{", "llvm"], [[], []]]), "not JSON"),
        (changed(i=[['["key"]', "-mcpu=x"], [[], []]]), "kind"),
        (changed(i=[['["key"]', "llvm"], [[], [17]]]), "a step is 17"),
        (changed(r=[]), "[costs, error"),
        (changed(r=[[0.0], 0, 1, 1]), "not measured yet"),
        (changed(r=[[], 0, 1, 1]), "no measured times"),
        (changed(r=[["fast"], 0, 1, 1]), "'fast'"),
        (changed(r=[[1.0], "0", 1, 1]), "error number"),
        (json.dumps([0, [[[]], [1.0], "llvm"]]), "[instructions, decisions]"),
        (json.dumps([0, [[[["Split"]], []], [1.0], "llvm"]]), "an instruction is"),
        (json.dumps([0, [[[], [[3, 1]]], [1.0], "llvm"]]), "instruction 3 of 0"),
        (json.dumps([0, [[[], []], None, "llvm"]]), "no measured times"),
        (json.dumps([0, [[[], []], [1.0], {"mcpu": "x"}]]), "kind"),
    ],
)
def test_a_wrong_line_is_told_with_its_number_and_the_next_one_is_read(tmp_path: Path, line: str, told: str) -> None:
    path = written(tmp_path, ANSOR_LINE, line, ANSOR_LINE)
    (fault,) = faults(path)
    assert fault.line == 2
    assert told in fault.problem
    assert [record.line for record in records(path)] == [1, 3]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_malformed(line: bytes) -> None:
    try:
        parse_line(line, 1, Surroundings(""))
    except Malformed as error:
        assert str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("irv"), inner, max_size=3),
    max_leaves=20,
)


@given(JSON_VALUES, JSON_VALUES)
def test_any_json_in_the_places_of_an_ansor_line_is_a_record_or_malformed(task: Any, result: Any) -> None:
    for value in ({"i": task, "r": result}, {"i": [task, [[], result]], "r": [[1.0], 0]}, [0, [task, result, "llvm"]]):
        try:
            parse_line(json.dumps(value).encode(), 1, Surroundings(""))
        except Malformed as error:
            assert str(error)


def test_a_metaschedule_database_of_an_older_tvm_is_read_with_its_workloads() -> None:
    found = read(DATA / "web_llm" / "database_tuning_record.json")
    workloads = [item for item in found if isinstance(item, WorkloadRow)]
    programs = [item for item in found if isinstance(item, Record)]
    assert workloads[0].workload == "727506180805651697"
    assert all(json.loads(row.module)["nodes"] for row in workloads)
    assert [record.workload for record in programs] == [row.workload for row in workloads]
    assert all(json.loads(record.target)["kind"] == "metal" for record in programs)
    assert "GetBlock" in programs[0].trace


def test_without_a_workload_file_records_are_named_after_their_file() -> None:
    path = DATA / "bennu_a100_resnet34.database_tuning_record.json"
    found = records(path)
    assert len(found) == 3
    assert found[0].workload == f"{path.name}#0"
    assert json.loads(found[0].target)["arch"] == "sm_80"


def test_a_damaged_workload_loses_its_records_and_no_others(tmp_path: Path) -> None:
    source = DATA / "web_llm"
    lines = (source / metaschedule.WORKLOADS).read_text().splitlines()
    lines[1] = lines[1][: len(lines[1]) // 2]
    written(tmp_path, *lines, name=metaschedule.WORKLOADS)
    path = tmp_path / metaschedule.RECORDS
    path.write_bytes((source / metaschedule.RECORDS).read_bytes())
    assert [record.line for record in records(path)] == [1, 3]
    assert [(fault.line, metaschedule.WORKLOADS in fault.problem) for fault in faults(path)] == [(2, True), (2, False)]


def test_a_record_of_a_workload_that_is_not_there_is_told(tmp_path: Path) -> None:
    written(tmp_path, name=metaschedule.WORKLOADS)
    path = tmp_path / metaschedule.RECORDS
    path.write_bytes((DATA / "web_llm" / metaschedule.RECORDS).read_bytes())
    assert not records(path)
    assert all("the workload file has 0" in fault.problem for fault in faults(path))


def test_a_compressed_file_reads_the_same_whatever_its_name(tmp_path: Path) -> None:
    plain = DATA / "bennu_x86_matmul.ansor.json"
    for name in ("log.json.gz", "log.json"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(plain.read_bytes()))
        assert records(path) == records(plain)


def test_a_compressed_file_that_was_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "log.json.gz"
    data = gzip.compress((ANSOR_LINE + "\n").encode() * 2000 + bytes(range(256)) * 64)
    path.write_bytes(data[: len(data) // 2])
    found = read(path)
    last = found[-1]
    assert isinstance(last, Fault) and last.ends_file
    assert "cut off" in last.problem
    assert last.line == len(found)


def test_a_file_that_only_says_it_is_compressed_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, ANSOR_LINE, name="log.json.gz")
    (fault,) = read(path)
    assert isinstance(fault, Fault)
    assert fault.ends_file and "not gzip" in fault.problem


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "MAX_LINE_BYTES", 1000)
    path = written(tmp_path, "short", "x" * 2000)
    with NumberedLines(path) as lines, pytest.raises(Damaged, match="longer than"):
        list(lines)


def test_the_files_of_a_tenset_folder_are_found_and_its_pickles_are_not(tmp_path: Path) -> None:
    for name in (
        "measure_records/e5-2673/([1,2],llvm).json",
        "measure_records/t4/([1,2],cuda).json",
        "to_measure_programs/([1,2],llvm).json",
        "network_info/all_tasks.pkl",
        "database_workload.json",
        "notes.txt",
    ):
        path = tmp_path / "dataset" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ANSOR_LINE)
    found = record_files([tmp_path / "dataset"])
    assert [file.name for file in found] == [
        "dataset/measure_records/e5-2673/([1,2],llvm).json",
        "dataset/measure_records/t4/([1,2],cuda).json",
    ]
    assert record_files([tmp_path / "dataset", found[0].path]) == found


def test_a_place_without_records_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoRecords, match="nowhere does not exist"):
        record_files([tmp_path / "nowhere"])
    with pytest.raises(NoRecords, match=r"holds no records: .*\.json"):
        record_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("llvm", {"kind": "llvm"}),
        (
            "llvm -keys=cpu -link-params=0 -mcpu=skylake-avx512 -model=platinum-8272",
            {"kind": "llvm", "keys": ["cpu"], "link-params": 0, "mcpu": "skylake-avx512", "model": "platinum-8272"},
        ),
        ("llvm -mattr=+neon,+dotprod -mtriple aarch64-linux-gnu", None),
        (
            "cuda -keys=cuda,gpu -arch=sm_86 -fast",
            {"kind": "cuda", "keys": ["cuda", "gpu"], "arch": "sm_86", "fast": True},
        ),
    ],
)
def test_targets_of_older_versions_are_taken_apart(text: str, attributes: dict[str, Any] | None) -> None:
    expected = attributes or {"kind": "llvm", "mattr": ["+neon", "+dotprod"], "mtriple": "aarch64-linux-gnu"}
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", ["", "-mcpu=x", "llvm stray", "llvm -model='open"])
def test_a_text_that_is_no_target_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="target"):
        parse_target(text)


# What `crosstune dataset collect` writes.

COLLECTED = {"workload": "w", "target": "x86-64-v3-2c", "trace": [[], []], "latencies_s": [1e-3, 2e-3], "invalid": None}


def collected_folder(folder: Path, lines: list[dict[str, Any]], **files: str) -> list[Item]:
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in files.items():
        (folder / f"{name}.jsonl").write_text(text)
    (file,) = record_files([folder])
    return list(read_file(file))


def test_a_collection_is_read_with_its_workloads_targets_and_held_out_networks(tmp_path: Path) -> None:
    workloads = json.dumps({"workload": "w", "name": "conv", "module": "{}", "held_out": True}) + "\n"
    targets = json.dumps({"target": "t", "spec": {"kind": "llvm", "mcpu": "znver3", "cores": 2}}) + "\n"
    line = {**COLLECTED, "target": "t", "origin": "replay", "quality": "censored", "features": "AAAA"}
    items = collected_folder(tmp_path, [line], workloads=workloads, targets=targets)
    workload, record = items
    assert workload == WorkloadRow("w", "conv", "{}")
    assert isinstance(record, Record)
    assert json.loads(record.target) == {"kind": "llvm", "mcpu": "znver3", "cores": 2}
    assert (record.origin, record.quality, record.features) == ("replay", "censored", bytes(3))
    assert record.held_out and record.latencies_s == (1e-3, 2e-3)


def test_an_earlier_collection_names_its_targets_shortly(tmp_path: Path) -> None:
    failed = {**COLLECTED, "latencies_s": None, "invalid": "compile_timeout"}
    first, second = collected_folder(tmp_path, [COLLECTED, failed])
    assert isinstance(first, Record) and isinstance(second, Record)
    assert json.loads(first.target) == {"kind": "llvm", "mcpu": "x86-64-v3", "cores": 2}
    assert (second.latencies_s, second.invalidity) == ((), "timeout")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trace": [1]}, "trace is not"),
        ({"latencies_s": [-1.0]}, "it was not measured yet"),
        ({"latencies_s": "fast"}, "no measured times"),
        ({"target": 5}, "its target is '5', not a name"),
        ({"features": "%%"}, "features are not base64"),
    ],
)
def test_a_damaged_line_of_a_collection_is_told_and_skipped(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    fault, record = collected_folder(tmp_path, [{**COLLECTED, **change}, COLLECTED])
    assert isinstance(fault, Fault) and told in fault.problem and fault.line == 1
    assert isinstance(record, Record)


def test_damaged_files_beside_a_collection_are_told(tmp_path: Path) -> None:
    faults = collected_folder(tmp_path, [COLLECTED], workloads='{"name": "x"}\nno JSON\n', targets="[]\n")[:-1]
    assert len(faults) == 3 and all(isinstance(fault, Fault) for fault in faults)
