"""Child side of a round's search: JSON in, JSON out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from crosstune.tuner.search import proposal_to_json, request_from_json
from crosstune.tuner.tvm_adapter import search


def propose(payload: dict[str, Any]) -> dict[str, Any]:
    """See `crosstune.tuner.search.propose`."""
    found = search.propose(request_from_json(payload))
    return {
        "candidates": [proposal_to_json(candidate) for candidate in found.candidates],
        "exhausted": found.exhausted,
        "note": found.note,
        "timings_s": found.timings_s,
        "lowered": found.lowered,
        "offered": {source: asdict(counts) for source, counts in found.offered.items()},
    }
