"""The plots of docs/cost-model.md, from benchmarks/results: `python -m benchmarks.figures`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cost_model_cases import KEPT, LABEL_SHARES, METHODS, PRUNED_BY, WHOLE, WORKLOADS
from benchmarks.readme import COST_MODEL, README, Report, reports
from crosstune.cost_model import plots

FOLDER = README.parent / "docs" / "images"
Row = Mapping[str, Any]
Interval = tuple[float, float, float]
METRIC_NAMES = {"pairwise": "pairwise accuracy", "top1": "top-1"}


def main() -> None:
    found = reports().get(COST_MODEL)
    if found is not None:
        FOLDER.mkdir(exist_ok=True)
        draw(found)


def draw(report: Report) -> None:
    by_key = {(row["split"], row["method"]): row for row in report["data"]["methods"]}
    kinds = [kind for kind in METHODS if (kind, "random") in by_key]
    methods = dict.fromkeys(method for kind, method in by_key if kind in kinds)
    series = {name: [interval(by_key.get((kind, name)), "top1") for kind in kinds] for name in methods}
    plots.bars(series, kinds, "top-1", FOLDER / "cost-model-splits.svg")
    if (WHOLE, "without-evidence") in by_key:
        for metric, label in METRIC_NAMES.items():
            plots.curves(
                kept_curves(by_key, metric),
                [1.0, *KEPT],
                ("share of the programs kept", f"{label}, held-out networks"),
                FOLDER / f"cost-model-kept-{metric}.svg",
            )
        fewer = (WHOLE, *(f"workloads {share:.0%}" for share in WORKLOADS))
        grown = {
            label: [interval(by_key.get((kind, "without-evidence")), metric) for kind in fewer]
            for metric, label in METRIC_NAMES.items()
        }
        axes = ("share of the workloads", "held-out networks")
        plots.curves(grown, [1.0, *WORKLOADS], axes, FOLDER / "cost-model-workloads.svg")
    if (f"labels {LABEL_SHARES[0]:.0%}", "attention") in by_key:
        labels = [interval(by_key.get((f"labels {share:.0%}", "attention")), "top1") for share in LABEL_SHARES]
        places = [100 * share for share in LABEL_SHARES]
        axes = ("share of the target's own labels, %", "top-1, unseen target")
        plots.curves({"attention": labels}, places, axes, FOLDER / "cost-model-labels.svg")


def kept_curves(by_key: Mapping[tuple[str, str], Row], metric: str) -> dict[str, list[Interval]]:
    return {
        name: [
            interval(by_key.get((kind, "without-evidence")), metric)
            for kind in (WHOLE, *(f"kept {share:.0%} {name}" for share in KEPT))
        ]
        for name in PRUNED_BY
    }


def interval(row: Row | None, metric: str) -> Interval:
    if row is None:
        return (float("nan"),) * 3
    return row[metric]["mean"], row[metric]["low"], row[metric]["high"]


if __name__ == "__main__":
    main()
