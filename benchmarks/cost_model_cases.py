"""What the cost model's benchmark trains and tests: each case is one split with one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosstune.cost_model import experiments
from crosstune.cost_model.attention.training import Settings
from crosstune.cost_model.evaluation import GroupScore
from crosstune.cost_model.experiments import Task
from crosstune.cost_model.groups import Group
from crosstune.cost_model.pruning.groups import pruned
from crosstune.cost_model.pruning.methods import METHODS as PRUNING

FOLDS = 5
"""Of the workloads; each seed tests one of them in turn."""
TARGETS = 2
"""That each seed tests, in turn: training is dear, and seeds of one target are less news than another target."""
UNSEEN, CONFIGURATION, SEEN, GPU = "unseen workloads", "unseen both", "unseen target", "gpu"
HARDWARE, HELD_OUT = "unseen hardware", "held-out networks"
METHODS = {
    UNSEEN: ("without-evidence", "tokens-only", "segment-sum", "xgboost", "random"),
    CONFIGURATION: ("attention", "target-blind", "shuffled-hardware", "xgboost", "copying", "random"),
    SEEN: ("attention", "copying", "random"),
    HARDWARE: ("attention", "xgboost", "copying", "random"),
    HELD_OUT: ("attention", "without-evidence", "xgboost", "copying", "random"),
    GPU: ("attention", "copying", "random"),
}
LABEL_SHARES = (0.0, 0.01, 0.07, 1.0)
"""Of the target's own labels that are trained on."""
KEPT = (0.55, 0.47, 0.25, 0.10)
CLAIMED_SHARE = 0.25
"""At which pruning is compared with chance."""
WORKLOADS = (0.5, 0.25)
"""Of the workloads: how much others would help."""
PRUNED_BY = ("random", "stratified-distinct")
WHOLE, MIXED = "kept 100 %", "with GPU logs"
TRAINING_ONLY = frozenset({"amd-epyc-zen-4-first"})
"""Collected with an earlier graph pipeline, without repeats: learnt from, never tested on."""


@dataclass(frozen=True, slots=True)
class Case:
    """One split with one seed; `methods` are trained on and rank the same groups."""

    kind: str
    task: Task
    seed: int
    epochs: int
    methods: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.task.name} {self.seed}".replace(" ", "-").replace(",", "").replace("%", "percent")

    def run(self) -> dict[str, list[GroupScore]]:
        settings = Settings(seed=self.seed, epochs=self.epochs, patience=4)
        return experiments.run(self.task, self.methods, settings)


def cases_of(groups: Sequence[Group], gpu: Sequence[Group], seeds: int, epochs: int) -> list[Case]:
    """`groups` may hold held-out ones, which are only ever tested on."""
    trainable = [one for one in groups if not one.held_out]
    held_out = [one for one in groups if one.held_out]
    found: list[Case] = []
    for seed in range(seeds):
        for kind, task in [*splits(trainable, seed), *held_out_split(trainable, held_out), *gpu_splits(gpu, seed)]:
            found.append(Case(kind, task, seed, epochs, METHODS[kind]))
        for task in label_splits(trainable, seed):
            found.append(Case(task.name.partition(",")[0], task, seed, epochs, ("attention",)))
        pruning, fewer = pruning_splits(trainable, held_out, seed), fewer_workloads(trainable, held_out, seed)
        for task in [*pruning, *fewer, *mixed_splits(trainable, held_out, gpu)]:
            found.append(Case(task.name, task, seed, epochs, ("without-evidence",)))
    return found


def splits(groups: Sequence[Group], seed: int) -> list[tuple[str, Task]]:
    found = []
    fold = experiments.unseen_workloads(groups, FOLDS, 0)[seed % FOLDS]
    found.append((UNSEEN, replace(fold, test=[one for one in fold.test if one.source not in TRAINING_ONLY])))
    for position, target in in_turn(tested_targets(groups), TARGETS, seed):
        for kind, seen in ((CONFIGURATION, False), (SEEN, True)):
            task = transferable(experiments.unseen_target(groups, target, seed, seen))
            found.append((kind, replace(task, name=f"target {position}")))
    for _, source in in_turn(sorted({one.source for one in groups} - TRAINING_ONLY), 1, seed):
        found.append((HARDWARE, transferable(unseen_hardware(groups, source, seed))))
    return [(kind, task) for kind, task in found if task.test]


def in_turn(names: Sequence[str], count: int, seed: int) -> list[tuple[int, str]]:
    """`count` of the names, with their positions; successive seeds go round."""
    if not names:
        return []
    return [(place, names[place]) for place in sorted({(count * seed + at) % len(names) for at in range(count)})]


def unseen_hardware(groups: Sequence[Group], source: str, seed: int) -> Task:
    """Nothing of one processor model is trained on, nor half of the workloads; the others' records are evidence."""
    names = sorted({one.workload for one in groups})
    order = np.random.default_rng(seed).permutation(len(names))
    tested = {names[position] for position in order[len(names) // 2 :]}
    others = [one for one in groups if one.source != source]
    return Task(
        source,
        [one for one in others if one.workload not in tested],
        [one for one in groups if one.source == source and one.workload in tested],
        others,
    )


def held_out_split(groups: Sequence[Group], held_out: Sequence[Group]) -> list[tuple[str, Task]]:
    return [(HELD_OUT, Task("all", groups, held_out, held_out))] if held_out else []


def gpu_splits(groups: Sequence[Group], seed: int) -> list[tuple[str, Task]]:
    found = []
    for target in sorted({one.target for one in groups}):
        task = transferable(experiments.unseen_target(groups, target, seed, seen_workloads=True))
        found.append((GPU, replace(task, name=target)))
    return found


def label_splits(groups: Sequence[Group], seed: int) -> list[Task]:
    """The split of unseen targets, with a share of the target's labels of the trained workloads; each seed takes other
    targets in turn."""
    found = []
    for position, target in in_turn(tested_targets(groups), 1, seed):
        task = transferable(experiments.unseen_target(groups, target, seed, seen_workloads=False))
        tested = {one.workload for one in task.test}
        own = [one for one in groups if one.target == target and one.workload not in tested]
        for share in LABEL_SHARES if task.test else ():
            some = thinned(own, share, seed)
            found.append(replace(task, name=f"labels {share:.0%}, target {position}", train=[*task.train, *some]))
    return found


def thinned(groups: Sequence[Group], share: float, seed: int) -> list[Group]:
    """Of each group a random `share` of its programs; groups of which fewer than two are left are dropped."""
    chance = np.random.default_rng([seed, round(100 * share)])
    found = []
    for group in groups:
        count = round(share * len(group.programs))
        if count >= 2:
            chosen = chance.choice(len(group.programs), count, replace=False)
            found.append(replace(group, programs=[group.programs[at] for at in chosen]))
    return found


def pruning_splits(groups: Sequence[Group], held_out: Sequence[Group], seed: int) -> list[Task]:
    """Trained on a part, tested on the held-out networks. A step takes as many programs of a group whatever is left,
    so all take equally many steps."""
    if not held_out:
        return []
    whole = Task(WHOLE, groups, held_out, ())
    parts = [
        replace(whole, name=f"kept {share:.0%} {name}", train=pruned(groups, PRUNING[name](share), seed))
        for name in PRUNED_BY
        for share in KEPT
    ]
    return [whole, *parts]


def fewer_workloads(groups: Sequence[Group], held_out: Sequence[Group], seed: int) -> list[Task]:
    """Trained on some of the workloads, with all their programs: compare with `WHOLE`, and with as many programs of
    all workloads."""
    names = sorted({one.workload for one in groups})
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    found = []
    for share in WORKLOADS if held_out else ():
        chosen = set(order[: round(share * len(order))])
        found.append(Task(f"workloads {share:.0%}", [one for one in groups if one.workload in chosen], held_out, ()))
    return found


def mixed_splits(groups: Sequence[Group], held_out: Sequence[Group], gpu: Sequence[Group]) -> list[Task]:
    """Logs of GPUs beside the CPUs' programs: compare with `WHOLE`."""
    return [Task(MIXED, [*groups, *gpu], held_out, ())] if held_out and gpu else []


def tested_targets(groups: Sequence[Group]) -> list[str]:
    return sorted({one.target for one in groups if one.source not in TRAINING_ONLY})


def transferable(task: Task) -> Task:
    """Tested only where the workload was measured on another target: else there is nothing to transfer."""
    known = {one.workload for one in task.known}
    return replace(task, test=[one for one in task.test if one.workload in known])
