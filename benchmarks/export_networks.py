"""Export networks that nobody shaped for crosstune: pytorchcv and transformers through torch.onnx.export.

Runs in an environment of its own (`make networks`), since torch and TVM bring two LLVMs. Weights are seeded random
values, batch-norm statistics are far from the identity, and no file is downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Export:
    name: str
    make: Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]
    opset: int
    dynamo: bool = False
    open_axes: tuple[str, ...] = ()
    """Names of the input's first axes that the file leaves open."""


def vision(family: str, name: str, size: int = 224) -> Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    def make() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        # Not through its model provider, which imports every model and with one of them torchvision.
        module = importlib.import_module(f"pytorchcv.models.{family}")
        return getattr(module, name)(pretrained=False), (torch.randn(1, 3, size, size),)

    return make


def text(kind: str, **options: Any) -> Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    def make() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**options)
        model = getattr(transformers, f"{kind}Model")(config)
        return OnlyTensors(model), (torch.randint(0, 1000, (1, 64)),)

    return make


def image_transformer(kind: str, **options: Any) -> Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    def make() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**options)
        return OnlyTensors(getattr(transformers, f"{kind}Model")(config)), (torch.randn(1, 3, 224, 224),)

    return make


class OnlyTensors(torch.nn.Module):
    """The first output of a transformers model, without its output object and its cache."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.model(values, return_dict=False)[0]


SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}

EXPORTS = (
    Export("resnet18", vision("resnet", "resnet18"), 13),
    Export("mobilenetv2", vision("mobilenetv2", "mobilenetv2_w1"), 14),
    Export("efficientnet_b0", vision("efficientnet", "efficientnet_b0"), 15),
    Export("mobilenetv3", vision("mobilenetv3", "mobilenetv3_large_w1"), 17),
    Export("shufflenetv2", vision("shufflenetv2", "shufflenetv2_w1"), 16),
    Export("seresnet18", vision("seresnet", "seresnet18"), 18, dynamo=True),
    Export("densenet121", vision("densenet", "densenet121"), 17),
    Export("preresnet18", vision("preresnet", "preresnet18"), 18),
    Export("regnetx002", vision("regnet", "regnetx002"), 20, dynamo=True),
    Export("ghostnet", vision("ghostnet", "ghostnet"), 17),
    Export("bert", text("Bert", **SMALL), 17),
    Export("distilbert", text("DistilBert", dim=256, n_layers=4, n_heads=4, hidden_dim=1024), 14),
    Export("gpt2", text("GPT2", n_embd=256, n_layer=4, n_head=4), 18, dynamo=True),
    Export("vit", image_transformer("ViT", **SMALL), 18, dynamo=True),
    Export("convnext", image_transformer("ConvNext", hidden_sizes=[48, 96, 192, 384], depths=[2, 2, 4, 2]), 20),
)

# Networks that no cost model is trained on. Two layers of a BERT have all the workloads of twelve.
HELD_OUT = (
    Export("resnet50", vision("resnet", "resnet50"), 17, open_axes=("batch",)),
    Export("resnet50b", vision("resnet", "resnet50b"), 17, open_axes=("batch",)),  # its stride is in the 3x3
    Export("mobilenetv2", vision("mobilenetv2", "mobilenetv2_w1"), 17, open_axes=("batch",)),
    Export("resnext50", vision("resnext", "resnext50_32x4d"), 17, open_axes=("batch",)),
    Export("bert_base", text("Bert", num_hidden_layers=2), 17, open_axes=("batch", "length")),
    Export(
        "bert_tiny",
        text("Bert", hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512),
        17,
        open_axes=("batch", "length"),
    ),
)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Batch-norm statistics and scales that change every value, so that wrong folding shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.2 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.7 + 0.6 * torch.rand(shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(shape, generator=generator))


def export(one: Export, folder: Path) -> dict[str, Any]:
    path = folder / f"{one.name}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        model, inputs = one.make()
        model.eval()
        with torch.no_grad():
            randomise(model, seed=0)
            scratch = path.with_suffix(".part")
            torch.onnx.export(
                model,
                inputs,
                str(scratch),
                opset_version=one.opset,
                dynamo=one.dynamo,
                external_data=False,
                input_names=["input"] if one.open_axes else None,
                dynamic_axes={"input": dict(enumerate(one.open_axes))} if one.open_axes else None,
            )
        scratch.replace(path)
    return {"name": one.name, "opset": one.opset, "exporter": "dynamo" if one.dynamo else "torchscript"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", action="store_true", help="the networks that no cost model is trained on")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    rows = []
    for one in HELD_OUT if options.held_out else EXPORTS:
        try:
            rows.append(export(one, options.folder))
        except Exception as error:  # noqa: BLE001 - an exporter's failure is a row of the report
            rows.append({"name": one.name, "opset": one.opset, "failed": f"{type(error).__name__}: {error}"[:500]})
        print(json.dumps(rows[-1]), flush=True)
    (options.folder / "exports.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
