"""The model that comes with the package, the measurements it was trained on, and the best of these."""

from __future__ import annotations

from pathlib import Path


def model_folder() -> Path:
    """Where the model lies that searches use unless they are told of another."""
    return Path(__file__).parent / "model"


def dataset_folder() -> Path:
    """The data set, pruned, that the model was trained on."""
    return Path(__file__).parent / "dataset"


def bests_file() -> Path:
    """The best latencies that were collected (cost_model.bests)."""
    return Path(__file__).parent / "bests.json"
