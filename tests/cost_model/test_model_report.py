"""`model evaluate --out`: what lies in the folder is what was found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

if not os.environ.get("CI"):
    pytest.importorskip("matplotlib", reason="plots need matplotlib: make training")

from crosstune.cost_model.attention.scoring import load_scorer
from crosstune.cost_model.groups import Group
from crosstune.cost_model.model_evaluation import Evaluation, evaluated
from crosstune.cost_model.model_report import latency_facts, write_report
from crosstune.cost_model.plots import calibration_points
from crosstune.cost_model.pretrained import model_folder


def test_a_report_has_a_table_its_numbers_and_plots(groups: list[Group], tmp_path: Path) -> None:
    found = evaluated(load_scorer(model_folder()), groups)
    assert {row["method"] for row in found.rows} == {"model", "model without evidence", "copying", "random"}
    write_report(tmp_path, found)
    text = (tmp_path / "report.md").read_text()
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["rows"] == list(found.rows)
    for name in ("targets", "learning"):
        assert f"({name}.svg)" in text
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    assert text.count("| znver3 2 |") == 4


def test_estimates_are_judged_by_how_many_times_they_are_off() -> None:
    measured_s = np.geomspace(1e-6, 1e-2, 200)
    found = Evaluation([], 1.5 * measured_s, measured_s, {})
    facts = latency_facts(found)
    assert facts["median_factor"] == pytest.approx(1.5) and facts["within_2x"] == 1.0
    places, quartiles = calibration_points(found.predicted_s, found.measured_s)
    assert (np.diff(places) > 0).all()
    np.testing.assert_allclose(quartiles, 1 / 1.5)
