"""How well the attention model ranks, beside xgboost, copying and chance. `python -m benchmarks.cost_model`

All methods are trained on the same groups and rank the same pools; each seed draws other folds, weights and orders.
Finished splits are kept, in the repository too, so a broken run goes on, on another machine as well: how well a model
ranks does not depend on it. The report is on the seeds whose splits are all finished. `--logs` names folders of public
GPU logs (two devices, the same workloads); without it the claims about GPUs stay unmeasured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import kept_cases, report
from benchmarks.cost_model_cases import Case, cases_of
from benchmarks.cost_model_claims import Scores, ranking_claims
from benchmarks.report import Claim
from crosstune.cost_model.attention.batches import program_batch
from crosstune.cost_model.attention.elsewhere import ElsewhereTrees
from crosstune.cost_model.attention.model import AttentionModel
from crosstune.cost_model.attention.prepared import prepare
from crosstune.cost_model.attention.scoring import Scorer
from crosstune.cost_model.attention.trees import Trees
from crosstune.cost_model.attention.weights import save
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.importing import Origin, import_files
from crosstune.cost_model.dataset.loading import load_groups
from crosstune.cost_model.evaluation import (
    METRICS,
    GroupScore,
    ceiling_score,
    interval,
    noise_ceiling,
    random_score,
)
from crosstune.cost_model.formats.sources import record_files
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens.schedule import schedule_rows, tokens
from crosstune.tuner.child import Template
from crosstune.tuner.describing import describe

COLLECTED = Path(__file__).parent.parent / "cost_model" / "pretrained" / "collected"
ANSOR_LINES = Path(__file__).parent.parent / "tests" / "cost_model" / "data" / "bennu_x86_matmul.ansor.json"
IMPORTED_LINES = 60_000
EPOCHS = 4
CANDIDATES = 512
TIMINGS = 20
LEAST_PROGRAMS = 24
"""Smaller pools say little about ranking."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished splits of an earlier run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--logs", type=Path, help="folder with <device>_*.ansor.json of two GPUs")
    parser.add_argument("--only", nargs="+", default=(), metavar="SPLIT", help="these splits alone; see the results")
    parser.add_argument("--minutes", type=float, help="start no further split after so long; a later run goes on")
    options = parser.parse_args()
    until_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    wanted, epochs = (1, 2) if options.quick else (options.seeds, EPOCHS)
    data = [*COLLECTED.rglob("*.gz"), *(sorted(options.logs.glob("*.json")) if options.logs is not None else ())]
    made_by = kept_cases.fingerprint(f"{epochs} epochs, pools of {LEAST_PROGRAMS}", data)
    bench = Bench(report.kept_folder("cost_model", options.quick, options.fresh), made_by)
    if not (options.quick or options.fresh):
        print(f"{kept_cases.unpack(bench.finished, made_by)} splits are finished", flush=True)
    groups = bench.groups()
    gpu = bench.gpu_groups(options.logs) if options.logs is not None else []
    cases = [one for one in cases_of(groups, gpu, wanted, epochs) if not options.only or one.kind in options.only]
    bench.run(cases, until_s)
    if not options.quick:
        kept_cases.pack(bench.finished, made_by)
    seeds = bench.finished_seeds(cases)
    if not seeds:
        raise SystemExit("no seed is finished; run the same command again")
    scores = bench.scores([one for one in cases if one.seed < seeds])
    facts = {"groups": len(groups), "workloads": len({one.workload for one in groups}), "seeds": seeds}
    facts["programs"] = sum(len(one.programs) for one in groups)
    path = report.write(
        "cost_model",
        command(seeds, options.only, options.logs is not None),
        [*ranking_claims(scores, groups), *timed_claims(scoring_ms(groups), import_rate())],
        {**facts, "sources": sources(groups), "methods": table(scores), "ceiling": ceiling(groups)},
        2,
        options.quick,
    )
    print(path)


def command(seeds: int, only: Sequence[str], with_logs: bool) -> str:
    parts = ["python -m benchmarks.cost_model", f"--seeds {seeds}"]
    parts += ["--only " + " ".join(f'"{kind}"' for kind in only)] if only else []
    return " ".join(parts + (["--logs FOLDER"] if with_logs else []))


class Bench:
    """Data sets made once, and scores kept by split, seed and what made them."""

    def __init__(self, folder: Path, made_by: str) -> None:
        self._folder, self.finished = folder, folder / made_by[:16]
        self.finished.mkdir(exist_ok=True)

    def groups(self) -> list[Group]:
        """Everything that was collected, one source for each processor, with statement features."""
        plain, described = DatasetFolder(self._folder / "plain"), DatasetFolder(self._folder / "described")
        if not described.parts():
            for collection in sorted(path for path in COLLECTED.iterdir() if path.is_dir()):
                import_files(plain, record_files([collection]), Origin(collection.name, collection.name))
            with Template.start() as template:
                describe(template, plain, described)
        return load_groups(described, LEAST_PROGRAMS)

    def gpu_groups(self, logs: Path) -> list[Group]:
        folder = DatasetFolder(self._folder / "gpu")
        for path in sorted(logs.glob("*.ansor.json")):
            device = path.name.split("_")[0]
            if device in ("a100", "rtx3080"):
                name = device.replace("rtx3080", "rtx-3080")
                import_files(folder, record_files([path]), Origin(device, name))
        return [merged(one) for one in load_groups(folder, LEAST_PROGRAMS)]

    def run(self, cases: Sequence[Case], until_s: float) -> None:
        """Train what is not kept yet, in as many processes as there are cores."""
        # Small matrices gain nothing from a second thread; the groups come into the processes by the fork.
        _shared[:] = cases
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
            list(pool.map(partial(self._run, until_s), range(len(cases))))

    def finished_seeds(self, cases: Sequence[Case]) -> int:
        """How many seeds, from the first on, lack nothing."""
        missing = [case.seed for case in cases if not self._kept(case).exists()]
        return min(missing, default=1 + max((case.seed for case in cases), default=-1))

    def scores(self, cases: Sequence[Case]) -> Scores:
        """By kind and method."""
        found: Scores = {}
        for case in cases:
            for method, rows in json.loads(self._kept(case).read_text()).items():
                # Each seed is a case of its own: what is paired are groups of one seed.
                scores = [GroupScore(one["workload"], f"{one['target']} {case.seed}", one["values"]) for one in rows]
                found.setdefault(case.kind, {}).setdefault(method, []).extend(scores)
        return found

    def _run(self, until_s: float, position: int) -> None:
        case = _shared[position]
        if self._kept(case).exists() or time.monotonic() > until_s:
            return
        found = case.run()
        text = json.dumps({method: [asdict(one) for one in rows] for method, rows in found.items()})
        self._kept(case).with_suffix(".part").write_text(text)
        self._kept(case).with_suffix(".part").replace(self._kept(case))
        print(case.name, flush=True)

    def _kept(self, case: Case) -> Path:
        return self.finished / f"{case.name}.json"


_shared: list[Case] = []
"""What the forked processes work on."""


def merged(group: Group) -> Group:
    """The target by its device: two GPUs have other target texts, but that is not what tells them apart."""
    group.target = group.device
    return group


def timed_claims(score_ms: list[float], rates: list[float]) -> list[Claim]:
    return [
        Claim("score_512_ms", median(score_ms), "ms", 50, "lower", (min(score_ms), max(score_ms)), len(score_ms)),
        Claim("import_lines_per_s", median(rates), "1/s", 20_000, "higher", (min(rates), max(rates)), len(rates)),
    ]


def sources(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What each collection holds."""
    found = []
    for name in sorted({one.source for one in groups}):
        own = [one for one in groups if one.source == name]
        facts = {"targets": len({one.target for one in own}), "workloads": len({one.workload for one in own})}
        found.append({"source": name, **facts, "programs": sum(len(one.programs) for one in own)})
    return found


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
    """Milliseconds for 512 candidates, each with evidence, as a worker scores them: the slower of schedule tokens alone
    (drafts) and statement features alone (lowered programs)."""
    group = max(groups, key=lambda one: len(one.programs))
    one = prepare([group], groups)[0]
    places = np.arange(CANDIDATES) % len(group.programs)
    programs = [group.programs[place] for place in places]
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), AttentionModel(), Trees.trained([one], 0), {})
        scorer = Scorer(Path(folder), threads=os.cpu_count() or 1)

    taught = ElsewhereTrees(group.hardware, [each for each in groups if each.workload == group.workload])

    def score(chosen: Sequence[Program]) -> None:
        evidence = (one.batch.evidence[places], one.batch.evidence_mask[places])
        batch = program_batch(chosen, group.hardware, group.shape, *evidence)
        elsewhere = taught.expect(schedule_rows(batch.kinds, batch.values, batch.step_mask))
        scorer.score(replace(batch, elsewhere=elsewhere))

    def times_ms(chosen: Sequence[Program]) -> list[float]:
        return [1e3 * _timed(lambda: score(chosen)) for _ in range(1 + TIMINGS)][1:]

    drafts = [replace(each, statements=None) for each in programs]
    lowered = [replace(each, schedule=tokens([])) for each in programs]
    return max((times_ms(drafts), times_ms(lowered)), key=median)


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
