"""A trained model as two files: `model.safetensors` and `card.json`. Nothing in them is ever executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crosstune.cost_model.attention.model import AttentionModel, Shape
from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.cost_model.tokens.evidence import EVIDENCE_WIDTH
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH
from crosstune.cost_model.tokens.vocabulary import VOCABULARY_VERSION
from crosstune.cost_model.tokens.workload import WORKLOAD_WIDTH

WEIGHTS, CARD = "model.safetensors", "card.json"
LAYOUT = {
    "feature_layout": FEATURE_LAYOUT,
    "vocabulary_version": VOCABULARY_VERSION,
    "hardware_width": HARDWARE_WIDTH,
    "workload_width": WORKLOAD_WIDTH,
    "evidence_width": EVIDENCE_WIDTH,
}
"""What a model and the code that feeds it must agree on."""


class UnusableModel(CostModelError):
    """A model's files that are missing, damaged, or of another layout."""


def save(folder: Path, model: AttentionModel, card: dict[str, Any]) -> None:
    """Write both files; `card` holds whatever tells how the model came to be."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    scratch = folder / f"{WEIGHTS}.part"
    save_file(state, scratch)
    scratch.replace(folder / WEIGHTS)
    facts = {"layout": LAYOUT, "shape": model.shape.to_json(), "parameters": model.parameter_count, **card}
    (folder / CARD).write_text(json.dumps(facts, indent=1) + "\n")


def read_card(folder: Path) -> dict[str, Any]:
    """The card of the model in `folder`; UnusableModel when there is none or its layout is not this version's."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text())
        layout = card["layout"]
        Shape(**card["shape"])
    except FileNotFoundError:
        raise UnusableModel(f"{folder} holds no {CARD}; `crosstune model train --out {folder}` makes a model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableModel(f"{path} is not a model's card: {error}") from None
    for name, wanted in LAYOUT.items():
        if layout.get(name) != wanted:
            raise UnusableModel(
                f"{folder} was trained for {name} {layout.get(name)}, this version has {wanted}; train it again"
            )
    found: dict[str, Any] = card
    return found


def load(folder: Path) -> tuple[AttentionModel, dict[str, Any]]:
    """The model and its card. UnusableModel says what is wrong."""
    card = read_card(folder)
    model = AttentionModel(Shape(**card["shape"]))
    path = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UnusableModel(f"{path} does not hold the weights that its card describes: {error}") from None
    model.eval()
    return model, card
