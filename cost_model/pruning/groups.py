"""Prune groups in memory as `dataset.pruning` prunes a data set: failures go first, then a method chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crosstune.cost_model.groups import Group
from crosstune.cost_model.pruning.methods import Method
from crosstune.cost_model.pruning.samples import Samples
from crosstune.cost_model.tokens.schedule import summary


def pruned(groups: Sequence[Group], method: Method, seed: int) -> list[Group]:
    """`groups` with the programs that `method` keeps; those of which nothing is left are dropped."""
    valid = [
        (at, place) for at, group in enumerate(groups) for place, one in enumerate(group.programs) if one.latency_s
    ]
    labels = [group.labels for group in groups]
    features = [summary(groups[at].programs[place].schedule) for at, place in valid]
    samples = Samples(
        np.array([at for at, _ in valid], dtype=np.int64),
        np.array([labels[at][place] for at, place in valid]),
        np.stack(features) if features else np.zeros((0, 0), dtype=np.float32),
    )
    kept: dict[int, list[int]] = {}
    for index in method.keep(samples, np.random.default_rng(seed)):
        at, place = valid[index]
        kept.setdefault(at, []).append(place)
    return [replace(groups[at], programs=[groups[at].programs[place] for place in kept[at]]) for at in sorted(kept)]
