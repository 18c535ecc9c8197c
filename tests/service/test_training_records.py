"""Our own records become training data: from both databases, and by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from crosstune.cost_model.features import FEATURE_LAYOUT, STATEMENT_COLUMNS, pack
from crosstune.cost_model.formats.record import Item, Record, WorkloadRow
from crosstune.db.engine import transaction
from crosstune.db.errors import StoreError
from crosstune.db.repositories import projects, records, targets
from crosstune.service import training_records
from crosstune.service.cli import application
from crosstune.service.training_records import stream

LOGS = Path(__file__).resolve().parents[1] / "cost_model" / "data"


def store(engine: Engine, make: Any, *candidates: Any, **more: Any) -> None:
    with transaction(engine) as connection:
        records.store(
            connection,
            target_key=make.target(connection).key,
            workload_key=make.workload(connection, more.pop("graph", "conv")).key,
            candidates=candidates,
            **{"project_key": projects.get(connection).key, **more},
        )


def read(url: str) -> list[Item]:
    return list(stream(url))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(application, list(arguments))


def test_each_workload_comes_before_its_first_record(engine: Engine, database_url: str, make: Any) -> None:
    store(engine, make, make.candidate("one", make.quick(0.1), make.full(0.25)))
    store(engine, make, make.candidate("other", make.quick(0.5)), graph="pool")
    store(engine, make, make.candidate("two", make.failure("compile")))
    found = read(database_url)
    assert [type(item) for item in found] == [WorkloadRow, Record, WorkloadRow, Record, Record]
    first, last = found[1], found[-1]
    assert isinstance(first, Record) and isinstance(last, Record)
    assert first.latencies_s == (0.25, 0.25, 0.25)  # the full measurement, not the quick one
    assert isinstance(found[0], WorkloadRow) and first.workload == found[0].workload == last.workload
    assert (last.latencies_s, last.invalidity) == ((), "compile")
    assert json.loads(first.target) == {"mcpu": "here"}
    assert json.loads(first.trace) == [["trace"], ["one"]]


def test_what_is_not_believed_or_not_ours_is_left_out(engine: Engine, database_url: str, make: Any) -> None:
    store(engine, make, make.candidate("imported", make.full(0.1, status="imported"), source="import"))
    with transaction(engine) as connection:
        other = projects.create(connection, "other").key
    store(engine, make, make.candidate("theirs", make.full(0.1)), project_key=other, visibility="project")
    assert read(database_url) == []


def test_features_quality_and_hardware_come_with_a_record(engine: Engine, database_url: str, make: Any) -> None:
    packed = pack(np.ones((1, STATEMENT_COLUMNS), dtype=np.float32))
    described = {"features": packed, "feature_layout": FEATURE_LAYOUT}
    store(engine, make, make.candidate("one", make.quick(0.1), make.full(0.25), **described))
    store(engine, make, make.candidate("two", make.quick(0.5), features=packed, feature_layout=99))
    with transaction(engine) as connection:
        targets.add_facts(connection, make.target(connection).key, {"vector_bits": 256.0}, "detected")
    _, one, two = read(database_url)
    assert isinstance(one, Record) and isinstance(two, Record)
    assert (one.features, one.quality) == (packed, "full")
    assert (two.features, two.quality) == (None, "quick")  # of a layout that this version does not read
    assert json.loads(one.target)["attributes"] == {"vector_bits": 256.0}


def test_workloads_of_held_out_networks_are_marked(
    engine: Engine, database_url: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, make, make.candidate("one", make.full(0.25)))
    store(engine, make, make.candidate("other", make.full(0.5)), graph="pool")
    with transaction(engine) as connection:
        held = make.workload(connection, "pool").version_free_key
    monkeypatch.setattr(training_records, "is_held_out", lambda key, _: key == held)
    marks = [item.held_out for item in read(database_url) if isinstance(item, Record)]
    assert marks == [False, True]


def test_a_database_without_tables_is_refused(empty_url: str) -> None:
    with pytest.raises(StoreError, match="crosstune db upgrade"):
        read(empty_url)


def test_logs_are_imported_and_counted_by_the_command_line(tmp_path: Path) -> None:
    folder = str(tmp_path / "dataset")
    made = run("dataset", "import", "--dataset", folder, str(LOGS), "--source", "public", "--json")
    assert made.exit_code == 0, made.output
    files = json.loads(made.stdout)["files"]
    assert sum(file["records"] for file in files) == 28
    again = run("dataset", "import", "--dataset", folder, str(LOGS), "--source", "public")
    assert again.exit_code == 0
    stats = json.loads(run("dataset", "stats", "--dataset", folder, "--vocabulary", "--json").stdout)
    assert stats["records"] == 28
    assert all(group["other_steps_share"] < 0.01 for group in stats["groups"])
    assert "sm_86" in run("dataset", "stats", "--dataset", folder).stdout


def test_our_own_records_are_imported_by_the_command_line(
    tmp_path: Path, engine: Engine, database_url: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, make, make.candidate("one", make.full(0.25)), make.candidate("two", make.full(0.5)))
    monkeypatch.setenv("CROSSTUNE_DATABASE_URL", database_url)
    monkeypatch.setenv("CROSSTUNE_DATA_DIR", str(tmp_path / "data"))
    folder = str(tmp_path / "dataset")
    made = run("dataset", "import", "--dataset", folder, "--records", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["files"][0]["records"] == 2
    again = run("dataset", "import", "--dataset", folder, "--records")
    assert again.exit_code == 1
    assert "another folder" in again.stderr


def test_skipped_lines_are_told_with_file_and_line(tmp_path: Path) -> None:
    log = tmp_path / "broken.json"
    log.write_text("nonsense\n" + (LOGS / "tvm_ci_matmul.json").read_text())
    made = run("dataset", "import", "--dataset", str(tmp_path / "dataset"), str(log))
    assert made.exit_code == 0, made.output
    assert "skipped: broken.json, line 1: it is not JSON" in made.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["import", "--dataset", "x"], 2, "--records"),
        (["import", "--dataset", "x", "--records", "log.json"], 1, "log.json does not exist"),
        (["import", "--dataset", "x", "nowhere.json"], 1, "nowhere.json does not exist"),
        (["stats", "--dataset", "nowhere"], 1, "crosstune dataset import"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / one) if one == "x" else one for one in arguments]
    result = run("dataset", *arguments)
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output
