"""The groups of a data set, in memory."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from statistics import median
from typing import Any

from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import batches, modules
from crosstune.cost_model.features import FEATURE_LAYOUT, layout_of, unpack
from crosstune.cost_model.formats.record import REPEAT
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens.hardware import hardware_token
from crosstune.cost_model.tokens.schedule import steps_of, tokens
from crosstune.cost_model.tokens.workload import workload_token

READ = [
    *("source", "format", "device", "target", "workload", "trace"),
    *("latencies_s", "features", "origin", "held_out"),
]


def load_groups(folder: DatasetFolder, least: int = 8) -> list[Group]:
    """Every group of a data set with at least `least` programs that ran. All in memory: prune large sets first."""
    programs = modules(folder)
    groups: dict[tuple[str, ...], Group] = {}
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in (row for batch in batches(folder, READ) for row in batch.to_pylist()):
        key = (row["source"], row["device"], row["target"], row["workload"])
        identity = hashlib.sha256(row["trace"].encode()).hexdigest()
        if key not in groups:
            shape = workload_token(programs.get((row["source"], row["workload"]), ""), row["workload"])
            hardware = hardware_token(row["target"], row["device"])
            groups[key] = Group(*key, hardware, shape, bool(row["held_out"]))
        latency_s = median(row["latencies_s"]) if row["latencies_s"] else None
        if row["origin"] == REPEAT:
            if latency_s is not None:
                groups[key].repeated_s[identity] = latency_s
        elif identity not in seen[key]:
            seen[key].add(identity)
            groups[key].programs.append(_program(row, identity, latency_s))
    return [group for group in groups.values() if group.valid >= least]


def _program(row: dict[str, Any], identity: str, latency_s: float | None) -> Program:
    packed = row["features"]
    usable = isinstance(packed, bytes) and layout_of(packed) == FEATURE_LAYOUT
    return Program(
        identity=identity,
        schedule=tokens(steps_of(str(row["format"]), str(row["trace"]))),
        statements=unpack(packed) if usable and isinstance(packed, bytes) else None,
        latency_s=latency_s,
    )
