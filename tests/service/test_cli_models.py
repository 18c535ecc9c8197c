"""`crosstune dataset describe` and `crosstune model`, as a user calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_stream
from crosstune.cost_model.features import STATEMENT_COLUMNS, pack
from crosstune.cost_model.formats.record import Record, canonical
from crosstune.service.cli import application

if not os.environ.get("CI"):
    pytest.importorskip("torch", reason="training needs torch: make training")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six workloads on two targets; the more is unrolled, the faster."""
    chance = np.random.default_rng(0)
    records = []
    for workload in range(6):
        for cores in (1, 2):
            target = canonical({"kind": "llvm", "mcpu": "znver3", "cores": cores})
            for step in range(12):
                steps = [["PR", 1, 0, f"auto_unroll_max_step${step}"], ["SP", 1, 0, 64, [1 + step], 1]]
                features = pack(np.abs(chance.normal(size=(2, STATEMENT_COLUMNS))).astype(np.float32))
                latency_s = 1e-3 * (1 + workload) / (1 + step)
                one = Record("ansor", "v0.6", f"w{workload}", target, canonical(steps), (latency_s,), None, None, step)
                records.append(one._replace(features=features, held_out=workload == 5))
    folder = tmp_path_factory.mktemp("data") / "set"
    import_stream(DatasetFolder(folder), "made", records, Origin("made"))
    return folder


def called(*arguments: object) -> Any:
    result = CliRunner().invoke(application, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_model_is_trained_and_ranks_what_it_was_kept_from(data: Path, tmp_path: Path) -> None:
    card = called("model", "train", "--dataset", data, "--out", tmp_path / "model", "--epochs", 8, "--json")
    assert card["data"]["held_out_groups"] == 2
    assert card["data"]["groups"] + card["data"]["validation_groups"] == 10
    assert card["data"]["fingerprint"] == DatasetFolder(data).fingerprint()
    rows = called("model", "evaluate", "--dataset", data, "--model", tmp_path / "model", "--held-out", "--json")
    by_method = {(row["target"], row["method"]): row["metrics"]["pairwise"]["mean"] for row in rows}
    for target in {row["target"] for row in rows}:
        assert by_method[target, "model"] > 0.9 and by_method[target, "random"] == 0.5
        assert by_method[target, "copying"] == 1.0  # both targets have the same order here


def test_methods_are_compared_on_the_same_groups(data: Path) -> None:
    rows = called(
        *("model", "compare", "--dataset", data, "--split", "unseen-target", "--epochs", 1, "--json"),
        *("--method", "copying", "--method", "attention", "--method", "random"),
    )
    assert [row["method"] for row in rows] == ["copying", "attention", "random"]
    assert {row["groups"] for row in rows} == {10}  # each workload that is not held out, on each target


def test_a_folder_without_a_model_is_told_what_to_do(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(application, ["model", "evaluate", "--dataset", str(data), "--model", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no card.json" in result.stderr and "crosstune model train" in result.stderr
