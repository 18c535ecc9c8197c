"""Retraining: from a data set to a model that is judged beside others, and what happens when that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from crosstune.cost_model import retraining
from crosstune.cost_model.attention.scoring import Scorer
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_stream
from crosstune.cost_model.evaluation import GroupScore
from crosstune.cost_model.formats.record import Item, Record, WorkloadRow, canonical
from crosstune.cost_model.gates import compare
from crosstune.cost_model.pretrained import model_folder
from crosstune.cost_model.retraining import MODEL, PROGRESS, REQUEST, RESULT, Request, TooLittle, run
from tests.strange_device import StrangeWorkload, strange_workloads

JUDGED = 5
TARGET = canonical({"kind": "llvm", "mcpu": "strange", "cores": 2})
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from crosstune.cost_model.retraining import main; "


@pytest.fixture(scope="module")
def workloads() -> list[StrangeWorkload]:
    return strange_workloads(20)


def items(workloads: list[StrangeWorkload]) -> Iterator[Item]:
    """One in five is set aside to judge by."""
    for number, one in enumerate(workloads):
        yield WorkloadRow(one.sha256, one.name, one.module)
        for line, each in enumerate(one.programs, 1):
            yield Record(
                *("metaschedule", "crosstune", one.sha256, TARGET, each.trace, (each.latency_s,), None, None, line),
                features=each.features,
                held_out=number % JUDGED == 0,
            )


@pytest.fixture
def prepared(tmp_path: Path, workloads: list[StrangeWorkload]) -> Callable[..., Path]:
    """A folder with a request."""

    def make(count: int = 20, **changes: Any) -> Path:
        import_stream(DatasetFolder(tmp_path / "records"), "all", items(workloads[:count]), Origin("crosstune"))
        request = Request(
            kind="xgboost",
            records=str(tmp_path / "records"),
            shipped=None,
            pruning="random",
            keep=1.0,
            most_programs=10_000,
            start=None,
            seed=0,
            epochs=1,
            seconds=600.0,
            judged={"shipped": str(model_folder())},
        )
        (tmp_path / REQUEST).write_text(json.dumps({**asdict(request), **changes}))
        return tmp_path

    return make


def scores(folder: Path, version: str) -> list[GroupScore]:
    judged = json.loads((folder / RESULT).read_text())["judged"]["scores"][version]
    return [GroupScore(**one) for one in judged]


def phases(folder: Path) -> list[str]:
    return [json.loads(line)["phase"] for line in (folder / PROGRESS).read_text().splitlines()]


def test_trees_are_retrained_without_torch_and_beat_the_shipped_model_where_that_is_wrong(
    prepared: Callable[..., Path],
) -> None:
    folder = prepared()
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + f"sys.exit(main([{str(folder)!r}]))"], check=False)
    assert done.returncode == 0
    assert len(scores(folder, MODEL)) == len(scores(folder, "shipped")) == 4
    assert compare(scores(folder, MODEL), scores(folder, "shipped"), ("top1", "pairwise")).reasons == ()
    assert phases(folder) == ["pruned", "prepared", "judged", "judged"]
    assert Scorer(folder / MODEL).card["kind"] == "xgboost"


def test_nothing_is_learnt_from_what_versions_are_judged_by(prepared: Callable[..., Path]) -> None:
    folder = prepared()
    run(folder)
    kept = json.loads((folder / RESULT).read_text())["training"]
    assert kept["own_groups"] == 16
    assert kept["records"] == DatasetFolder(folder / "records").totals()["records"]


def test_a_network_is_retrained_from_scratch_and_from_a_version(prepared: Callable[..., Path]) -> None:
    pytest.importorskip("torch")
    folder = prepared(kind="attention", start=str(model_folder()))
    run(folder)
    card = Scorer(folder / MODEL).card
    assert card["history"][0]["epoch"] == 0 and card["settings"]["epochs"] == 1
    assert (folder / MODEL / "model.safetensors").stat().st_size > 1000
    assert "epoch" in phases(folder)


def test_what_was_trained_before_a_crash_is_only_judged(prepared: Callable[..., Path]) -> None:
    folder = prepared()
    run(folder)
    (folder / RESULT).unlink()
    before = len(phases(folder))
    run(folder)
    assert phases(folder)[before:] == ["judged", "judged"]


def test_too_few_workloads_are_refused_with_what_is_needed(prepared: Callable[..., Path]) -> None:
    with pytest.raises(TooLittle, match="1 workloads with at least 8 programs"):
        run(prepared(count=2))


def test_a_request_that_cannot_be_met_ends_the_process_with_a_sentence(prepared: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", retraining.__name__, str(prepared(count=2))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tune more networks" in done.stderr and len(done.stderr.splitlines()) == 1


def test_no_more_programs_are_learnt_from_than_fit(prepared: Callable[..., Path]) -> None:
    folder = prepared(most_programs=200)
    run(folder)
    assert json.loads((folder / RESULT).read_text())["training"]["programs"] <= 220


def test_a_damaged_version_beside_it_is_told_and_no_obstacle(prepared: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    folder = prepared(judged={"mdl_broken": str(tmp_path / "broken"), "shipped": str(model_folder())})
    run(folder)
    found = json.loads((folder / RESULT).read_text())["judged"]["scores"]
    assert "holds no card.json" in found["mdl_broken"]
    assert len(found[MODEL]) == len(found["shipped"])
