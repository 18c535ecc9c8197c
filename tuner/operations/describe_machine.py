"""Child side: this machine's processor and the processors that can be compiled for."""

from __future__ import annotations

from typing import Any

from crosstune.tuner.tvm_adapter.processors import features, own_features, own_processor, processors


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Answers mcpu, features (of this very machine), missing (those that `mcpu` implies and this machine lacks) and
    runnable (names of processors whose code runs here).

    payload: triple
    """
    triple, mcpu, found = payload["triple"], own_processor(), own_features()
    lacking = {name for name, present in found.items() if not present}
    return {
        "mcpu": mcpu,
        "features": sorted(name for name, present in found.items() if present),
        "missing": sorted(features(mcpu, triple) & lacking),
        "runnable": [name for name in processors(triple) if not features(name, triple) & lacking],
    }


def check_processor(payload: dict[str, Any]) -> dict[str, Any]:
    """Answers known: the processor names that LLVM has for a triple, none when it cannot compile for it.

    payload: triple
    """
    return {"known": processors(payload["triple"])}
