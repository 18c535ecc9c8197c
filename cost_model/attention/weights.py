"""A trained model as files: `model.safetensors`, `trees-*.ubj`, `card.json`, and the same network as `model.onnx` for
those who only score. Nothing in them is ever executed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crosstune.cost_model.attention.batches import empty_batch
from crosstune.cost_model.attention.card import GRAPH, WEIGHTS, Shape, UnusableModel, has_network, read_card, write_card
from crosstune.cost_model.attention.model import AttentionModel, tensors_of
from crosstune.cost_model.attention.trees import Trees

OPSET = 18
PADDED = frozenset({"statements", "statement_mask", "kinds", "blocks", "values", "step_mask"})
"""Arrays whose second axis is as long as the batch needs."""


def save(folder: Path, model: AttentionModel, trees: Trees, card: dict[str, Any]) -> None:
    """Write all files; `card` holds whatever tells how the model came to be."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    scratch = folder / f"{WEIGHTS}.part"
    save_file(state, scratch)
    scratch.chmod(0o644)  # the library lets nobody else read it
    scratch.replace(folder / WEIGHTS)
    trees.save(folder)
    _export(model, folder / GRAPH)
    facts = {"shape": model.shape.to_json(), "parameters": model.parameter_count, "trees": len(trees)}
    write_card(folder, {**facts, **card})


def load(folder: Path) -> tuple[AttentionModel, dict[str, Any]]:
    """The network and its card, without the trees. UnusableModel says what is wrong."""
    card = read_card(folder)
    if not has_network(card):
        raise UnusableModel(f"{folder} holds trees alone, no network")
    model = AttentionModel(Shape(**card["shape"]))
    path = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UnusableModel(f"{path} does not hold the weights that its card describes: {error}") from None
    model.eval()
    return model, card


class _ByPosition(nn.Module):  # type: ignore[misc]
    """The model with its tensors as positional arguments, as the exporter wants them."""

    def __init__(self, model: AttentionModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        scores, slowness = self.model(dict(zip(self.names, tensors, strict=True)))
        return scores, slowness


def _export(model: AttentionModel, path: Path) -> None:
    tensors = tensors_of(empty_batch(2, stores=2, steps=2))
    axes = {name: {0: "programs", **({1: f"{name}_tokens"} if name in PADDED else {})} for name in tensors}
    training = model.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's word that another is to replace it
        torch.onnx.export(
            _ByPosition(model, tuple(tensors)).eval(),
            tuple(tensors.values()),
            str(path),
            input_names=list(tensors),
            output_names=["scores", "slowness"],
            dynamic_axes={**axes, "scores": {0: "programs"}, "slowness": {0: "programs"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model.train(training)
