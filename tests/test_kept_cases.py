"""Finished cases of the cost model's benchmark go on elsewhere, and never with other code or data."""

from __future__ import annotations

import json
from pathlib import Path

import crosstune.cost_model.metrics  # noqa: F401  a part of the code that a fingerprint covers
from benchmarks.kept_cases import fingerprint, pack, unpack


def test_what_was_packed_comes_back(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    for number in range(3):
        (here / f"case {number}.json").write_text(json.dumps({"attention": [{"top1": number / 3}]}))
    pack(here, "a", tmp_path / "kept.xz")
    assert unpack(there, "a", tmp_path / "kept.xz") == 3
    assert {path.name: path.read_text() for path in there.iterdir()} == {
        path.name: path.read_text() for path in here.iterdir()
    }


def test_what_other_code_or_data_made_is_left(tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text("{}")
    pack(tmp_path, "a", tmp_path / "kept.xz")
    assert unpack(tmp_path, "b", tmp_path / "kept.xz") == 0
    assert unpack(tmp_path, "a", tmp_path / "missing.xz") == 0


def test_settings_and_data_have_a_part_in_the_fingerprint(tmp_path: Path) -> None:
    data = tmp_path / "records.gz"
    data.write_bytes(b"one")
    first = fingerprint("4 epochs", [data])
    assert fingerprint("4 epochs", [data]) == first != fingerprint("2 epochs", [data])
    data.write_bytes(b"other")
    assert fingerprint("4 epochs", [data]) != first


def test_where_the_data_lie_has_no_part_in_the_fingerprint(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    for path in ("a/one.gz", "b/two.gz", "b/one.gz", "c/one.gz"):
        (tmp_path / path).write_bytes(path[2:].encode())
    before = fingerprint("4 epochs", [tmp_path / "a/one.gz", tmp_path / "b/two.gz"])
    assert fingerprint("4 epochs", [tmp_path / "b/two.gz", tmp_path / "c/one.gz"]) == before
