"""Targets as older TVM versions wrote them (`llvm -keys=cpu -mcpu=core-avx2`), which today's TVM refuses."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from crosstune.cost_model.formats.record import Malformed, canonical

LISTS = frozenset({"keys", "libs", "mattr"})


@lru_cache(maxsize=4096)
def parse_target(text: str) -> Mapping[str, Any]:
    """`kind` and options of a target text, without dashes: {"kind": "llvm", "keys": ["cpu"], "mcpu": "core-avx2"}.

    An option without a value is true. Malformed when it does not begin with a kind.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Malformed(f"the target {text[:80]!r} cannot be read: {error}") from None
    if not words or words[0].startswith("-"):
        raise Malformed(f"the target {text[:80]!r} does not begin with a kind such as llvm or cuda")
    attributes: dict[str, Any] = {"kind": words[0]}
    position = 1
    while position < len(words):
        name, equals, value = words[position].partition("=")
        position += 1
        if not name.startswith("-"):
            raise Malformed(f"the target {text[:80]!r} has {name!r} where an option should be")
        if not equals and position < len(words) and not words[position].startswith("-"):
            value, equals = words[position], "="
            position += 1
        name = name.lstrip("-")
        attributes[name] = _value(name, value) if equals else True
    return attributes


def _value(name: str, text: str) -> Any:
    if name in LISTS:
        return text.split(",") if text else []
    return int(text) if text.isdecimal() else text


def target_json(value: Any) -> str:
    """Canonical JSON of a target that is given as text or as an object; Malformed for anything else."""
    if isinstance(value, str):
        return canonical(parse_target(value.strip()))
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        return canonical({name: each for name, each in value.items() if each not in ("", None)})
    raise Malformed(f"the target {str(value)[:80]!r} is neither a target text nor an object with a kind")
