"""Plots of how well a model ranks, as SVG files; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIZE_INCHES = (7.0, 4.2)
CALIBRATION_BINS = 10
Intervals = Mapping[str, Sequence[tuple[float, float, float]]]
"""Mean, low and high at each place, by series."""


def learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Training loss and validation top-1 by epoch, as a model's card has them."""
    figure, axes = _figure("epoch", "training loss")
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["loss"] for row in history], label="training loss")
    if any("top1" in row for row in history):
        right = axes.twinx()
        right.set_ylabel("validation top-1")
        right.plot(epochs, [row.get("top1", np.nan) for row in history], color="tab:orange", label="validation top-1")
        figure.legend(loc="upper center", ncols=2, frameon=False)
    _save(figure, path)


def bars(series: Intervals, places: Sequence[str], label: str, path: Path) -> None:
    """One bar for each series at each place, with its interval."""
    figure, axes = _figure("", label)
    width = 0.8 / max(1, len(series))
    for number, (name, values) in enumerate(series.items()):
        means, low, high = np.array(values).T
        at = np.arange(len(places)) + (number - 0.5 * (len(series) - 1)) * width
        axes.bar(at, means, width, yerr=[means - low, high - means], capsize=2, label=name)
    axes.set_xticks(np.arange(len(places)), places)
    axes.legend(fontsize="small", frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _save(figure, path)


def curves(series: Intervals, places: Sequence[float], labels: tuple[str, str], path: Path) -> None:
    """Each series over `places`, with its interval as a band."""
    figure, axes = _figure(*labels)
    for name, values in series.items():
        means, low, high = np.array(values).T
        (line,) = axes.plot(places, means, marker="o", label=name)
        axes.fill_between(places, low, high, alpha=0.15, color=line.get_color())
    axes.legend(frameon=False)
    _save(figure, path)


def predicted_and_measured(predicted_s: NDArray[np.float64], measured_s: NDArray[np.float64], path: Path) -> None:
    figure, axes = _figure("measured, seconds", "predicted, seconds")
    axes.loglog(measured_s, predicted_s, ".", markersize=2, alpha=0.4)
    ends = [min(measured_s.min(), predicted_s.min()), max(measured_s.max(), predicted_s.max())]
    axes.plot(ends, ends, color="grey", linewidth=1)
    _save(figure, path)


def calibration(predicted_s: NDArray[np.float64], measured_s: NDArray[np.float64], path: Path) -> None:
    """Median and middle half of measured over predicted latency, by predicted latency."""
    figure, axes = _figure("predicted, seconds", "measured over predicted")
    places, quartiles = calibration_points(predicted_s, measured_s)
    axes.fill_between(places, quartiles[0], quartiles[2], alpha=0.2)
    axes.plot(places, quartiles[1], marker="o")
    axes.axhline(1.0, color="grey", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    _save(figure, path)


def calibration_points(
    predicted_s: NDArray[np.float64], measured_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(bins,) median predictions and (3, bins) quartiles of measured over predicted, in bins of equal size."""
    parts = np.array_split(np.argsort(predicted_s), min(CALIBRATION_BINS, len(predicted_s)))
    places = np.array([np.median(predicted_s[part]) for part in parts])
    ratios = [np.quantile(measured_s[part] / predicted_s[part], [0.25, 0.5, 0.75]) for part in parts]
    return places, np.array(ratios).T


def _save(figure: Figure, path: Path) -> None:
    """The same numbers make the same file: no date in it, no ids drawn at random."""
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _figure(across: str, up: str) -> tuple[Any, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
