"""The table of best latencies that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crosstune.cost_model import bests
from crosstune.cost_model.bests import collected, read, shipped, write
from crosstune.cost_model.formats.collected import RECORDS, TARGETS, WORKLOADS
from crosstune.cost_model.hold_out import FILE, is_held_out
from crosstune.cost_model.pretrained import bests_file

COLLECTED = bests_file().parent / "collected"


def lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def workload(name: str, held_out: bool = False, key: str | None = None) -> dict[str, Any]:
    args = [["float32", [4, 8]], ["float32", [4]]]
    return {
        "workload": name,
        "version_free_key": key or f"key of {name}",
        "name": "sum",
        "flops": 32.0,
        "args": args,
    } | {"held_out": held_out}


def record(workload: str, latencies_s: list[float] | None, **more: Any) -> dict[str, Any]:
    return {"workload": workload, "target": "t", "latencies_s": latencies_s, "quality": "quick"} | more


def folder(path: Path, workloads: list[dict[str, Any]], records: list[dict[str, Any]]) -> Path:
    path.mkdir()
    attributes = {"peak_flops_per_s": 1e11, "memory_bytes_per_s": 1e10, "vendor": "none"}
    lines(path / TARGETS, [{"target": "t", "spec": {"kind": "llvm", "model": "m", "attributes": attributes}}])
    lines(path / WORKLOADS, workloads)
    lines(path / RECORDS, records)
    return path


def test_full_measurements_outweigh_quick_ones_and_failures_count_for_nothing(tmp_path: Path) -> None:
    made = folder(
        tmp_path / "made",
        [workload("a"), workload("b")],
        [
            record("a", [1.0, 2.0, 3.0]),
            record("a", [0.5], cold_latencies_s=[4.0, 6.0, 5.0]),
            record("a", [0.5], cold_latencies_s=[7.0]),
            record("a", [0.1], invalid="correctness"),
            record("b", [2.0]),
            record("b", [1.5], disturbed=True),
            record("b", [1.0], quality="censored"),
            record("b", None, invalid="compile"),
            record("unheard of", [1.0]),
        ],
    )
    assert {best.computation.key: best.latency_s for best in collected([made])} == {"key of a": 5.0, "key of b": 2.0}


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = collected([folder(tmp_path / "made", [workload("a")], [record("a", [1.0])])])
    write(tmp_path / "bests.json", made)
    assert list(read(tmp_path / "bests.json")) == list(made)
    assert "vendor" not in (tmp_path / "bests.json").read_text()


def test_held_out_workloads_are_told_by_their_flag_or_by_their_key(tmp_path: Path) -> None:
    listed = json.loads(Path(bests.__file__).with_name(FILE).read_text())["keys"][0]
    made = folder(
        tmp_path / "made",
        [workload("a"), workload("b", held_out=True), workload("c", key=listed)],
        [record(name, [1.0]) for name in "abc"],
    )
    assert [best.computation.key for best in collected([made])] == ["key of a"]
    assert {best.computation.key for best in collected([made], held_out=True)} == {"key of b", listed}


def test_the_shipped_table_holds_nothing_of_the_held_out_networks() -> None:
    keys = {best.computation.key for best in shipped()}
    held_out = {best.computation.key for best in collected(sorted(COLLECTED.iterdir()), held_out=True)}
    assert len(keys) > 100 and len(held_out) > 50
    assert not keys & held_out
    assert not [key for key in keys if is_held_out(key, None)]


def test_the_shipped_table_is_what_the_collections_give() -> None:
    assert list(shipped()) == list(collected(sorted(COLLECTED.iterdir())))
