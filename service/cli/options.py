"""Options that several commands share, and the values behind them."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Machine output: JSON on stdout and nothing else there.")]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many entries.")]
ShapesOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME:D,D,...", help="Size of an input with open dimensions; may be repeated."),
]
LabelsOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")
]


def parse_shapes(texts: list[str] | None) -> dict[str, list[int]]:
    """`input:1,3,224,224` -> {"input": [1, 3, 224, 224]}; the name may hold colons itself."""
    shapes: dict[str, list[int]] = {}
    for text in texts or []:
        name, colon, sizes = text.rpartition(":")
        try:
            shape = [int(size) for size in sizes.split(",")]
        except ValueError:
            shape = []
        if not (name and colon and shape and all(size > 0 for size in shape)):
            raise typer.BadParameter(f"{text!r} is not of the form NAME:1,3,224,224", param_hint="--shape")
        shapes[name] = shape
    return shapes


def parse_labels(texts: list[str] | None) -> dict[str, str]:
    """`team=vision` -> {"team": "vision"}."""
    labels: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels
