"""Does retraining on networks that were tuned help with another network? A part of `python -m benchmarks.lifecycle`

The shipped model has learnt nothing of the held-out networks. A version learns from what comes with the package and
what was collected of three of them, as a retraining with the usual settings does; then it and the shipped model rank
what was collected of a fourth, of whose workloads neither has seen one. Each of FOURTH is the fourth once for each
seed, which also draws the three of the other four. How well models rank does not depend on the machine.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.answers import COLLECTED
from benchmarks.report import Claim
from crosstune.cost_model import experiments
from crosstune.cost_model.attention.prepared import prepare
from crosstune.cost_model.attention.scoring import Scorer
from crosstune.cost_model.attention.training import Settings
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_files
from crosstune.cost_model.dataset.loading import load_groups
from crosstune.cost_model.evaluation import GroupScore, difference, group_score, interval
from crosstune.cost_model.experiments import Task
from crosstune.cost_model.formats.collected import WORKLOADS
from crosstune.cost_model.formats.sources import record_files
from crosstune.cost_model.groups import Group
from crosstune.cost_model.pretrained import dataset_folder, model_folder
from crosstune.cost_model.pruning.groups import pruned
from crosstune.cost_model.pruning.methods import METHODS
from crosstune.service.schemas.cost_models import RetrainIn
from crosstune.tuner.child import Template
from crosstune.tuner.describing import describe

FOURTH = ("bert_tiny", "mobilenetv2", "resnet50")
"""Of the five held-out networks; some minutes of training for each seed."""
LEARNT = 3
RETRAINED, SHIPPED = "retrained", "shipped"
METRIC = "top1"
Scores = dict[str, list[GroupScore]]
"""By model."""


@dataclass(frozen=True, slots=True)
class Data:
    """shipped: what comes with the package; held_out: what was collected of held-out networks; networks: workloads of
    each."""

    shipped: list[Group]
    held_out: list[Group]
    networks: Mapping[str, frozenset[str]]

    @classmethod
    def at(cls, folder: Path) -> Data:
        """Read once, and described there."""
        plain, described = DatasetFolder(folder / "plain"), DatasetFolder(folder / "described")
        collections = sorted(COLLECTED.glob("*-held-out"))
        if not described.parts():
            for one in collections:
                import_files(plain, record_files([one]), Origin(one.name, one.name))
            with Template.start() as template:
                describe(template, plain, described)
        return cls(load_groups(DatasetFolder(dataset_folder())), load_groups(described), members(collections))

    def task(self, fourth: str, seed: int) -> Task:
        usual = RetrainIn()
        others = sorted(set(self.networks) - {fourth})
        learnt = set().union(*(self.networks[one] for one in random.Random(seed).sample(others, LEARNT)))
        own = [replace(one, held_out=False) for one in self.held_out if one.workload in learnt - self.networks[fourth]]
        own = pruned(own, METHODS[usual.pruning.method](usual.pruning.keep), seed)
        test = [one for one in self.held_out if one.workload in self.networks[fourth]]
        return Task(f"{fourth} {seed}", [*own, *self.shipped], test, test)


def members(collections: Sequence[Path]) -> dict[str, frozenset[str]]:
    """Workloads by network."""
    found: dict[str, set[str]] = {}
    for collection in collections:
        with gzip.open(collection / f"{WORKLOADS}.gz", "rt") as lines:
            for line in map(json.loads, lines):
                for network in line["networks"]:
                    found.setdefault(network, set()).add(line["workload"])
    return {network: frozenset(workloads) for network, workloads in found.items()}


def compared(folder: Path, seeds: int, networks: int = len(FOURTH)) -> dict[str, Any]:
    """top1 of both models by network and seed, and the gain: retrained minus shipped, paired over workloads, targets
    and seeds. Finished cases are kept in `folder`."""
    folder.mkdir(exist_ok=True)
    data = Data.at(folder)
    cases = [(fourth, seed) for seed in range(seeds) for fourth in FOURTH[:networks]]
    _shared[:] = [data]
    # Small matrices gain nothing from a second thread; the groups come into the processes by the fork.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        found = list(pool.map(partial(_case, folder), cases))
    pooled = {model: [one for scores in found for one in scores[model]] for model in (RETRAINED, SHIPPED)}
    rows = [row(fourth, seed, scores) for (fourth, seed), scores in zip(cases, found, strict=True)]
    return {"cases": rows, "gain": asdict(difference(pooled[RETRAINED], pooled[SHIPPED], METRIC))}


def row(fourth: str, seed: int, scores: Scores) -> dict[str, Any]:
    means = {model: interval(rows, METRIC).mean for model, rows in scores.items()}
    return {"network": fourth, "seed": seed, "groups": len(scores[SHIPPED]), METRIC: means}


_shared: list[Data] = []
"""What the forked processes work on."""


def _case(folder: Path, case: tuple[str, int]) -> Scores:
    fourth, seed = case
    kept = folder / f"{fourth}-{seed}.json"
    if not kept.exists():
        scores = _scores(_shared[0].task(fourth, seed), seed)
        kept.write_text(json.dumps({model: [asdict(one) for one in rows] for model, rows in scores.items()}))
        print(row(fourth, seed, scores), flush=True)
    return {model: [GroupScore(**one) for one in rows] for model, rows in json.loads(kept.read_text()).items()}


def _scores(task: Task, seed: int) -> Scores:
    """Each seed and network is a case of its own: what is paired are groups of one case."""
    settings = Settings(seed=seed, epochs=RetrainIn().budget.epochs)
    shipped = Scorer(model_folder(), 1)
    found = {
        RETRAINED: experiments.run(task, ("attention",), settings)["attention"],
        SHIPPED: [group_score(one.group, shipped.score(one.batch)) for one in prepare(task.test, task.known)],
    }
    return {model: [replace(one, target=f"{one.target} {task.name}") for one in rows] for model, rows in found.items()}


def claim(found: Mapping[str, Any]) -> Claim:
    """The low end of the gain's 95 % interval."""
    gain = found["gain"]
    return Claim(
        "retrained_top1_gain", gain["low"], "", 0.0, "higher", (gain["low"], gain["high"]), len(found["cases"])
    )
