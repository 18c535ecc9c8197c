"""Workloads of the five networks that no model is trained on, so that it can be tested on them.

ResNet-50, MobileNet-V2, ResNeXt-50 (32x4d), BERT-base and BERT-tiny, TenSet's hold-out. `python -m benchmarks.hold_out`
makes the list: every workload of these networks at several batch sizes (BERT: and lengths), by version-free key, and
by its anchor (the largest reduction alone), so that another epilogue does not let it pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

FILE = "held_out.json"
JUDGED_EVERY = 5


def is_held_out(version_free_key: str, anchor_key: str | None) -> bool:
    """Whether a workload belongs to a held-out network, by either of its keys (tuner.tvm_adapter.compute)."""
    held = _held_out()
    return version_free_key in held["keys"] or anchor_key in held["anchors"]


def is_judged(version_free_key: str) -> bool:
    """Whether retrained versions are judged by a workload, and so never learn from it: one in JUDGED_EVERY, whatever
    the database holds."""
    return int(version_free_key[:8], 16) % JUDGED_EVERY == 0


@cache
def _held_out() -> Mapping[str, frozenset[str | None]]:
    found = json.loads(resources.files(__package__).joinpath(FILE).read_text())
    return {name: frozenset(found[name]) for name in ("keys", "anchors")}
