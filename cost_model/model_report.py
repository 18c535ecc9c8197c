"""What `model evaluate` found, as a folder to read and to keep: report.md, report.json and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.cost_model import plots
from crosstune.cost_model.model_evaluation import Evaluation

METRICS = {"pairwise": "pairwise", "top1": "top-1", "top5": "top-5"}


def write_report(folder: Path, found: Evaluation) -> None:
    """Write all files into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["targets"]
    targets = list(dict.fromkeys(map(short, found.rows)))
    plots.bars(_by_method(found.rows, targets), targets, "top-1", folder / "targets.svg")
    if found.card.get("history"):
        plots.learning_curve(found.card["history"], folder / "learning.svg")
        names.append("learning")
    if len(found.measured_s):
        plots.predicted_and_measured(found.predicted_s, found.measured_s, folder / "latencies.svg")
        plots.calibration(found.predicted_s, found.measured_s, folder / "calibration.svg")
        names += ["latencies", "calibration"]
    facts = {"rows": found.rows, "latencies": latency_facts(found), "card": found.card}
    (folder / "report.json").write_text(json.dumps(facts, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(found, names))


def short(row: Mapping[str, Any]) -> str:
    """A row's target by the fields that people know it by."""
    fields = json.loads(row["target"])
    named = [str(fields[name]) for name in ("model", "mcpu", "arch", "cores") if fields.get(name)]
    return " ".join(named) or str(fields["kind"])


def latency_facts(found: Evaluation) -> dict[str, float]:
    """How far estimates are from what was measured: the median factor, and the share within a factor of two."""
    if not len(found.measured_s):
        return {}
    off = np.abs(np.log2(found.predicted_s / found.measured_s))
    return {
        "programs": float(len(off)),
        "median_factor": float(2.0 ** np.median(off)),
        "within_2x": float(np.mean(off <= 1.0)),
    }


def markdown(found: Evaluation, plot_names: Sequence[str]) -> str:
    lines = ["# Evaluation of a cost model", ""]
    lines += [
        "| target | method | groups | pool | pairwise | top-1 | top-5 | skill |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found.rows:
        values = [_interval(row["metrics"][name]) for name in METRICS]
        skill = "-" if row["skill_top1"] is None else f"{row['skill_top1']:.2f}"
        cells = [short(row), row["method"], str(row["groups"]), f"{row['median_pool']:g}", *values, skill]
        lines.append(f"| {' | '.join(cells)} |")
    facts = latency_facts(found)
    if facts:
        lines += [
            "",
            f"Estimated latencies of {facts['programs']:,.0f} programs: in the median off by a factor of "
            f"{facts['median_factor']:.2f}, {facts['within_2x']:.0%} within a factor of two.",
        ]
    lines += ["", *(f"![{name}]({name}.svg)" for name in plot_names), ""]
    return "\n".join(lines)


def _by_method(
    rows: Sequence[Mapping[str, Any]], targets: Sequence[str]
) -> dict[str, list[tuple[float, float, float]]]:
    nothing = (float("nan"),) * 3
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        top1 = row["metrics"]["top1"]
        series = found.setdefault(row["method"], [nothing] * len(targets))
        series[targets.index(short(row))] = (top1["mean"], top1["low"], top1["high"])
    return found


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
