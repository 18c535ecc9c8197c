"""How well the attention model ranks, beside xgboost, copying and chance. `python -m benchmarks.cost_model`

All methods are trained on the same groups and rank the same pools; each seed draws other folds, weights and orders.
Finished splits are kept, so a broken run goes on. `--logs` names folders of public GPU logs (two devices, the same
workloads); without it the claims about GPUs stay unmeasured.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.report import CACHE, Claim
from crosstune.cost_model import experiments
from crosstune.cost_model.attention.batches import group_batch
from crosstune.cost_model.attention.model import AttentionModel
from crosstune.cost_model.attention.training import Settings, score
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_files
from crosstune.cost_model.evaluation import (
    METRICS,
    GroupScore,
    Interval,
    ceiling_score,
    difference,
    interval,
    noise_ceiling,
    random_score,
)
from crosstune.cost_model.experiments import Task
from crosstune.cost_model.formats.sources import record_files
from crosstune.cost_model.groups import Group, load_groups
from crosstune.tuner.child import Template
from crosstune.tuner.describing import describe

COLLECTED = Path(__file__).parent.parent / "cost_model" / "pretrained" / "collected"
ANSOR_LINES = Path(__file__).parent.parent / "tests" / "cost_model" / "data" / "bennu_x86_matmul.ansor.json"
FOLDS = 4
IMPORTED_LINES = 60_000
CANDIDATES = 512
TIMINGS = 20
UNSEEN, CONFIGURATION, SEEN, GPU = "unseen workloads", "unseen both", "unseen target", "gpu"
METHODS = {
    UNSEEN: ("without-evidence", "tokens-only", "segment-sum", "xgboost", "random"),
    CONFIGURATION: ("attention", "target-blind", "xgboost", "copying", "random"),
    SEEN: ("attention", "copying", "random"),
    GPU: ("attention", "copying", "random"),
}
TRAINING_ONLY = frozenset({"amd-epyc-zen-4-first"})
"""Collected with an earlier graph pipeline, without repeats: learnt from, never tested on."""
Scores = dict[str, dict[str, list[GroupScore]]]
"""By kind of split and method."""
LEAST_PROGRAMS = 24
"""Smaller pools say little about ranking."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished splits of an earlier run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--logs", type=Path, help="folder with <device>_*.ansor.json of two GPUs")
    options = parser.parse_args()
    bench = Bench(CACHE / ("cost_model.quick" if options.quick else "cost_model"), options.fresh or options.quick)
    seeds, epochs = (1, 2) if options.quick else (options.seeds, 12)
    groups = bench.groups()
    cases = [Case(kind, task, seed, epochs) for seed in range(seeds) for kind, task in splits(groups, seed)]
    if options.logs is not None:
        gpu = bench.gpu_groups(options.logs)
        cases += [Case(kind, task, seed, epochs) for seed in range(seeds) for kind, task in gpu_splits(gpu, seed)]
    scores = bench.scores(cases)
    facts = {"groups": len(groups), "workloads": len({one.workload for one in groups}), "seeds": seeds}
    facts["programs"] = sum(len(one.programs) for one in groups)
    path = report.write(
        "cost_model",
        f"python -m benchmarks.cost_model --seeds {seeds}" + (" --logs FOLDER" if options.logs else ""),
        claims(scores, groups, scoring_ms(groups), import_rate()),
        {**facts, "methods": table(scores), "ceiling": ceiling(groups)},
        2,
        options.quick,
    )
    print(path)


@dataclass(frozen=True, slots=True)
class Case:
    """One split with one seed."""

    kind: str
    task: Task
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.task.name} {self.seed}".replace(" ", "-").replace(",", "")


class Bench:
    """Data sets made once, and scores kept by split, seed and settings."""

    def __init__(self, folder: Path, fresh: bool) -> None:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def groups(self) -> list[Group]:
        """Everything that was collected, one source for each processor, with statement features."""
        plain, described = DatasetFolder(self._folder / "plain"), DatasetFolder(self._folder / "described")
        if not described.parts():
            for collection in sorted(path for path in COLLECTED.iterdir() if path.is_dir()):
                import_files(plain, record_files([collection]), Origin(collection.name, collection.name))
            with Template.start() as template:
                describe(template, plain, described)
        return [one for one in load_groups(described, LEAST_PROGRAMS) if not one.held_out]

    def gpu_groups(self, logs: Path) -> list[Group]:
        folder = DatasetFolder(self._folder / "gpu")
        for path in sorted(logs.glob("*.ansor.json")):
            device = path.name.split("_")[0]
            if device in ("a100", "rtx3080"):
                name = device.replace("rtx3080", "rtx-3080")
                import_files(folder, record_files([path]), Origin(device, name))
        return [merged(one) for one in load_groups(folder, LEAST_PROGRAMS)]

    def scores(self, cases: Sequence[Case]) -> Scores:
        """By kind and method; what is not kept yet is trained in as many processes as there are cores."""
        # Small matrices gain nothing from a second thread; the groups come into the processes by the fork.
        _shared[:] = cases
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
            list(pool.map(self._run, range(len(cases))))
        found: Scores = {}
        for case in cases:
            for method, rows in json.loads(self._kept(case).read_text()).items():
                # Each seed is a case of its own: what is paired are groups of one seed.
                scores = [GroupScore(one["workload"], f"{one['target']} {case.seed}", one["values"]) for one in rows]
                found.setdefault(case.kind, {}).setdefault(method, []).extend(scores)
        return found

    def _run(self, position: int) -> None:
        case = _shared[position]
        if self._kept(case).exists():
            return
        found = experiments.run(case.task, METHODS[case.kind], Settings(seed=case.seed, epochs=case.epochs, patience=4))
        text = json.dumps({method: [asdict(one) for one in rows] for method, rows in found.items()})
        self._kept(case).with_suffix(".part").write_text(text)
        self._kept(case).with_suffix(".part").replace(self._kept(case))
        print(case.name, flush=True)

    def _kept(self, case: Case) -> Path:
        return self._folder / f"{case.name}.json"


_shared: list[Case] = []
"""What the forked processes work on."""


def merged(group: Group) -> Group:
    """The target by its device: two GPUs have other target texts, but that is not what tells them apart."""
    group.target = group.device
    return group


def splits(groups: Sequence[Group], seed: int) -> list[tuple[str, Task]]:
    found = []
    for task in experiments.unseen_workloads(groups, FOLDS, seed):
        test = [one for one in task.test if one.source not in TRAINING_ONLY]
        found.append((UNSEEN, replace(task, test=test)))
    for target in sorted({one.target for one in groups if one.source not in TRAINING_ONLY}):
        for kind, seen in ((CONFIGURATION, False), (SEEN, True)):
            task = transferable(experiments.unseen_target(groups, target, seed, seen))
            if task.test:
                found.append((kind, replace(task, name=f"{task.name} {len(found)}")))
    return found


def gpu_splits(groups: Sequence[Group], seed: int) -> list[tuple[str, Task]]:
    found = []
    for target in sorted({one.target for one in groups}):
        task = transferable(experiments.unseen_target(groups, target, seed, seen_workloads=True))
        found.append((GPU, replace(task, name=f"{task.name} {target}")))
    return found


def transferable(task: Task) -> Task:
    """Tested only where the workload was measured on another target: else there is nothing to transfer."""
    known = {one.workload for one in task.known}
    return replace(task, test=[one for one in task.test if one.workload in known])


def claims(scores: Scores, groups: Sequence[Group], score_ms: list[float], rates: list[float]) -> list[Claim]:
    """Levels and differences as the lower end of their 95 % interval over workloads."""

    def level(kind: str, method: str, metric: str) -> Interval | None:
        rows = scores.get(kind, {}).get(method)
        return interval(rows, metric) if rows else None

    def gap(kind: str, one: str, other: str, metric: str) -> Interval | None:
        rows, others = scores.get(kind, {}).get(one), scores.get(kind, {}).get(other)
        return difference(rows, others, metric) if rows and others else None

    def claim(name: str, found: Interval | None, goal: float, kind: str) -> Claim:
        cases = len(next(iter(scores.get(kind, {"": []}).values())))
        if found is None or math.isnan(found.mean):
            return Claim(name, None, "", goal, "higher", None, 0)
        return Claim(name, found.low, "", goal, "higher", (found.low, found.high), cases)

    not_yet = {
        "heldout_top1": (0.90, "higher"),
        "heldout_top5": (0.97, "higher"),
        "heldout_skill_top1": (0.85, "higher"),
        "heldout_top1_minus_xgboost": (0.02, "higher"),
        "labels_7pct_top1_gap": (0.02, "lower"),
        "kept_fraction_non_inferior": (0.25, "lower"),
        "pruned_minus_random_same_size": (0.0, "higher"),
        "trials_ratio_vs_xgboost": (0.7, "lower"),
    }
    return [
        claim("pairwise_accuracy_minus_xgboost", gap(UNSEEN, "without-evidence", "xgboost", "pairwise"), 0.02, UNSEEN),
        claim("unseen_target_top1", level(CONFIGURATION, "attention", "top1"), 0.85, CONFIGURATION),
        claim("unseen_target_top5", level(CONFIGURATION, "attention", "top5"), 0.95, CONFIGURATION),
        claim("unseen_top1_minus_blind", gap(CONFIGURATION, "attention", "target-blind", "top1"), 0, CONFIGURATION),
        claim("seen_workload_top1_minus_copy", gap(SEEN, "attention", "copying", "top1"), 0, SEEN),
        claim("gpu_transfer_top1_minus_copy", gap(GPU, "attention", "copying", "top1"), 0, GPU),
        Claim("score_512_ms", median(score_ms), "ms", 50, "lower", (min(score_ms), max(score_ms)), len(score_ms)),
        Claim("import_lines_per_s", median(rates), "1/s", 20_000, "higher", (min(rates), max(rates)), len(rates)),
        *(Claim(name, None, "", goal, better, None, 0) for name, (goal, better) in not_yet.items()),  # type: ignore[arg-type]
    ]


def table(scores: Scores) -> list[dict[str, Any]]:
    return [
        {"split": kind, "method": method, "cases": len(rows), **{m: asdict(interval(rows, m)) for m in METRICS}}
        for kind, methods in scores.items()
        for method, rows in methods.items()
    ]


def ceiling(groups: Sequence[Group]) -> dict[str, float]:
    """What the second measurement reaches as a predictor of the first, and chance, on the repeated programs."""
    found = noise_ceiling(groups)
    if not found:
        return {}
    return {
        "groups": float(sum(ceiling_score(one) is not None for one in groups)),
        **found,
        "random_top1": float(np.mean([random_score(one).values["top1"] for one in groups])),
    }


def scoring_ms(groups: Sequence[Group]) -> list[float]:
    """Milliseconds for 512 candidates from arrays to scores, each with evidence: the slower of schedule tokens alone
    (drafts) and statement features alone (lowered programs)."""
    group = max(groups, key=lambda one: len(one.programs))
    others = [one for one in groups if one.workload == group.workload and one.target != group.target]
    whole = group_batch(group, others)
    batch = whole.chosen(np.arange(CANDIDATES) % len(whole))
    model = AttentionModel()
    modes = [frozenset({"statements"}), frozenset({"schedule"})]
    times_ms = [[1e3 * _timed(lambda: score(model, batch, mode)) for _ in range(TIMINGS)] for mode in modes]  # noqa: B023
    return max((times[1:] for times in times_ms), key=median)


def import_rate() -> list[float]:
    """Lines per second of an Ansor log like TenSet's: one file, read, checked and written as Parquet."""
    lines = ANSOR_LINES.read_text().splitlines()
    rates = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch) / "log.json"
            repeated = (lines * (1 + IMPORTED_LINES // len(lines)))[:IMPORTED_LINES]
            log.write_text("\n".join(repeated) + "\n")
            folder = DatasetFolder(Path(scratch) / "set")
            files = record_files([log])
            rates.append(IMPORTED_LINES / _timed(lambda: import_files(folder, files, Origin("x"))))  # noqa: B023
    return rates


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
