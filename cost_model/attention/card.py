"""A model's card: what it was made of, and what the code that feeds it must agree on. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crosstune.cost_model.attention.batches import BATCH_LAYOUT
from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.cost_model.tokens.evidence import EVIDENCE_WIDTH
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH
from crosstune.cost_model.tokens.vocabulary import VOCABULARY_VERSION
from crosstune.cost_model.tokens.workload import WORKLOAD_WIDTH

WEIGHTS, CARD, GRAPH, TREES = "model.safetensors", "card.json", "model.onnx", "trees-{}.ubj"
LAYOUT = {
    "batch_layout": BATCH_LAYOUT,
    "feature_layout": FEATURE_LAYOUT,
    "vocabulary_version": VOCABULARY_VERSION,
    "hardware_width": HARDWARE_WIDTH,
    "workload_width": WORKLOAD_WIDTH,
    "evidence_width": EVIDENCE_WIDTH,
}


class UnusableModel(CostModelError):
    """A model's files that are missing, damaged, or of another layout."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    width: int = 64
    heads: int = 4
    layers: int = 2
    inner: int = 128
    dropout: float = 0.1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """`facts` hold at least `trees`, and `shape` where there is a network."""
    (folder / CARD).write_text(json.dumps({"layout": LAYOUT, **facts}, indent=1) + "\n")


def has_network(card: dict[str, Any]) -> bool:
    """False: trees alone, which need no torch to be trained."""
    return "shape" in card


def read_card(folder: Path) -> dict[str, Any]:
    """The card of the model in `folder`; UnusableModel when there is none or its layout is not this version's."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text())
        layout = card["layout"]
        Shape(**card.get("shape", {}))
        card["trees"] = int(card["trees"])
    except FileNotFoundError:
        raise UnusableModel(f"{folder} holds no {CARD}; `crosstune model train --out {folder}` makes a model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableModel(f"{path} is not a model's card, or an older version's: {error!r}; train it again") from None
    for name, wanted in LAYOUT.items():
        if layout.get(name) != wanted:
            raise UnusableModel(
                f"{folder} was trained for {name} {layout.get(name)}, this version has {wanted}; train it again"
            )
    found: dict[str, Any] = card
    return found
