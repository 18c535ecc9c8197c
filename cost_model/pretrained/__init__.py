"""The model that comes with the package, and the measurements it was trained on."""

from __future__ import annotations

from pathlib import Path


def model_folder() -> Path:
    """Where the model lies that searches use unless they are told of another."""
    return Path(__file__).parent / "model"


def dataset_folder() -> Path:
    """The data set, pruned, that the model was trained on."""
    return Path(__file__).parent / "dataset"
