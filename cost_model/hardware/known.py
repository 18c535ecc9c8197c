"""Look up what is published of the hardware behind a target: by its model's name, its GPU architecture or its mcpu."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

Attributes = Mapping[str, Any]
"""`kind` (cpu | gpu), and numbers whose names carry their units, as tuner.hardware names what it detects."""
NAMING = ("model", "device", "tag")
"""Fields of a target that may hold a model's name, the most trusted first."""
OPERATIONS_PER_LANE = 2
"""A fused multiply-add is two operations."""
FLOAT_BITS = 32


def lookup(target: Mapping[str, Any], device: str = "") -> Attributes | None:
    """Attributes of the hardware of `target` (as of formats.target_text), or None when nothing is known of it.

    `device` is what the importer was told and outweighs the target. A model's name tells everything that the table has;
    a GPU's `arch` stands for the first of its kind in the table (`assumed` is then true); an `mcpu` tells the vector
    unit alone. `num-cores` or `cores` of the target replaces the chip's, and peaks follow it.
    """
    for name in (device, *(str(target.get(field, "")) for field in NAMING)):
        if name and (found := _by_name().get(_plain(name))) is not None:
            return _scaled(found, target)
    if (arch := target.get("arch")) is not None and (found := _by_arch().get(str(arch))) is not None:
        return {**_scaled(found, target), "assumed": True}
    if (family := _families().get(str(target.get("mcpu", "")))) is not None:
        return _scaled({"kind": "cpu", **family}, target)
    return None


def known_names() -> list[str]:
    """The names in the table, without their aliases."""
    return list(_table())


def _scaled(found: Attributes, target: Mapping[str, Any]) -> Attributes:
    """With the target's own number of cores, and the arithmetic peak where it can be worked out."""
    attributes = {name: value for name, value in found.items() if name != "aliases"}
    cores = target.get("num-cores", target.get("cores"))
    if attributes["kind"] == "cpu" and isinstance(cores, int) and cores > 0:
        attributes["cores"] = cores
    needed = ("cores", "frequency_hz", "vector_bits", "vector_units")
    if attributes["kind"] == "cpu" and all(name in attributes for name in needed):
        per_cycle = OPERATIONS_PER_LANE * attributes["vector_units"] * attributes["vector_bits"] / FLOAT_BITS
        attributes["peak_flops_per_s"] = attributes["cores"] * attributes["frequency_hz"] * per_cycle
    return attributes


def _plain(name: str) -> str:
    return name.strip().lower()


@cache
def _table() -> Mapping[str, Attributes]:
    return _read("known.toml")


@cache
def _families() -> Mapping[str, Attributes]:
    return _read("families.toml")


@cache
def _by_name() -> Mapping[str, Attributes]:
    return {name: each for main, each in _table().items() for name in (main, *each["aliases"])}


@cache
def _by_arch() -> Mapping[str, Attributes]:
    found: dict[str, Attributes] = {}
    for each in _table().values():
        if "arch" in each:
            found.setdefault(each["arch"], each)
    return found


def _read(name: str) -> Mapping[str, Attributes]:
    text = resources.files(__package__).joinpath(name).read_text()
    return MappingProxyType(tomllib.loads(text))
