"""What a model is trained on and what it is tested on.

The first three are TenSet's, exactly as in tlc-pack/tenset@35774ed3, python/tvm/auto_scheduler/dataset.py, so that
figures on its files can be compared. A record's *task* is its workload on its target. All answer indices into the
records, in the order in which they were read.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Split(NamedTuple):
    train: Indices
    test: Indices


def within_task(tasks: Sequence[Hashable], ratio: float = 0.9) -> Split:
    """Of each task the last `ratio` of its records to train, the first to test; not shuffled, and in reversed order.

    Searches write better programs later, so it trains on late programs and is tested on early ones.
    """
    train: list[int] = []
    test: list[int] = []
    for members in _members(tasks).values():
        flipped = members[::-1]
        cut = int(ratio * len(flipped))
        train += flipped[:cut]
        test += flipped[cut:]
    return _split(train, test)


def by_task(tasks: Sequence[Hashable], ratio: float = 0.9, seed: int = 0) -> Split:
    """Whole tasks, shuffled: to train until they would hold more than `ratio` of all records, the rest to test."""
    groups = _members(tasks)
    names = list(groups)
    order = list(range(len(names)))
    np.random.RandomState(seed).shuffle(order)  # the generator that TenSet shuffles with
    most = int(len(tasks) * ratio)
    train: list[int] = []
    test: list[int] = []
    count = 0
    for position in order:
        members = groups[names[position]]
        count += len(members)
        (train if count <= most else test).extend(members)
    return _split(train, test)


def by_target(tasks: Sequence[Hashable], targets: Sequence[Hashable], ratio: float = 0.9) -> Split:
    """Whole targets, the last read first, not shuffled: to train while those before hold at most `ratio` of all.

    The target that passes the limit is still trained on.
    """
    groups = _members(targets)
    most = int(len(tasks) * ratio)
    train: list[int] = []
    test: list[int] = []
    count = 0
    for members in reversed(list(groups.values())):
        (train if count <= most else test).extend(_by_first_task(members, tasks))
        count += len(members)
    return _split(train, test)


def hold_out(workloads: Sequence[Hashable], held_out: frozenset[Hashable]) -> Split:
    """Every record of the workloads in `held_out` to test, on whatever target, and nothing else."""
    test = [index for index, workload in enumerate(workloads) if workload in held_out]
    train = [index for index, workload in enumerate(workloads) if workload not in held_out]
    return _split(train, test)


def leave_target_out(
    targets: Sequence[Hashable],
    workloads: Sequence[Hashable],
    target: Hashable,
    seen_workloads: frozenset[Hashable],
    label_share: float = 0.0,
    seed: int = 0,
) -> Split:
    """Train on all other targets, and on `label_share` of this target's records of `seen_workloads`.

    Tested on the target's records of the other workloads, of which no record of any target is trained on.
    """
    chance = np.random.default_rng(seed)
    own = [i for i, (t, w) in enumerate(zip(targets, workloads, strict=True)) if t == target and w in seen_workloads]
    labelled = chance.choice(own, size=round(label_share * len(own)), replace=False).tolist() if own else []
    train = [i for i, (t, w) in enumerate(zip(targets, workloads, strict=True)) if t != target and w in seen_workloads]
    test = [
        i for i, (t, w) in enumerate(zip(targets, workloads, strict=True)) if t == target and w not in seen_workloads
    ]
    return _split([*train, *labelled], test)


def _members(names: Sequence[Hashable]) -> Mapping[Hashable, list[int]]:
    """Indices by name, names in the order in which they first appear."""
    groups: dict[Hashable, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name, []).append(index)
    return groups


def _by_first_task(members: Sequence[int], tasks: Sequence[Hashable]) -> list[int]:
    """Members task by task, as TenSet keeps them."""
    groups = _members([tasks[index] for index in members])
    return [members[position] for positions in groups.values() for position in positions]


def _split(train: Sequence[int], test: Sequence[int]) -> Split:
    return Split(np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64))
