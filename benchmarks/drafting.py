"""Does drafting keep what the full model would choose? `python -m benchmarks.drafting`

Of each of eight operators some thousand random drafts are lowered and put in order by the shipped model, which knows
nothing of them. The small model over decisions is taught what it says of as many as a round of sixteen candidates
lowers first, and puts the others in order without their programs. Recall: how many of the full model's top 64 are in
the best eighth by the small model; chance is an eighth. Nothing is measured, so it needs no quiet machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

import numpy as np

from benchmarks import operators, report
from benchmarks.operators import OPERATORS
from crosstune.cost_model.baselines.draft_ranker import DraftRanker
from crosstune.cost_model.ranker import Context
from crosstune.cost_model.rankers import make_ranker
from crosstune.tuner.child import Template
from crosstune.tuner.collecting_here import attributes
from crosstune.tuner.contracts import SHORTLIST, TargetSpec, Workload
from crosstune.tuner.drafts import Draft, Space, instructions_key, vectors
from crosstune.tuner.targets import detect_machine, native
from crosstune.tuner.tvm_adapter.preload import preload

DRAFTS, TOP, SHARE = 1536, 64, 0.125
TAUGHT = int(16 * SHORTLIST / 2)
"""What the first of two generations lowers."""
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one operator, one seed; not written as a result")
    options = parser.parse_args()
    made = operators.make()
    with Template.start() as template:
        machine = detect_machine(template)
        spec = native(machine)
        known = attributes(template, machine, spec)
    preload()
    rows = [
        row(operator.name, made.workloads[operator], spec, known, seed)
        for operator in OPERATORS[: 1 if options.quick else None]
        for seed in range(1 if options.quick else SEEDS)
    ]
    path = report.write(
        "drafting", "python -m benchmarks.drafting", [], {"rows": rows, **summary(rows)}, spec.cores, options.quick
    )
    print(path)


def row(name: str, workload: Workload, spec: TargetSpec, known: dict[str, Any], seed: int) -> dict[str, Any]:
    """One operator and seed: recall of the small model among programs that it was not taught."""
    spaces, drafts, scores = ranked(workload, spec, known, seed)
    width = 1 + max(space.width for space in spaces)
    rows = vectors(spaces, drafts, width)
    model = DraftRanker(seed)
    model.fit(rows[:TAUGHT], list(scores[:TAUGHT]))
    found = {"operator": name, "seed": seed, "programs": len(drafts)}
    found |= recalled(model.score(rows[TAUGHT:]), scores[TAUGHT:])
    print(found, flush=True)
    return found


def ranked(
    workload: Workload, spec: TargetSpec, known: dict[str, Any], seed: int
) -> tuple[list[Space], list[Draft], np.ndarray]:
    """The spaces, different random drafts that could be lowered, and what the full model says of their programs."""
    from crosstune.tuner.evidence import fields_of
    from crosstune.tuner.tvm_adapter.lowered import Lowerer
    from crosstune.tuner.tvm_adapter.search import design_spaces
    from crosstune.tuner.tvm_adapter.target import tvm_target

    random, target = Random(seed), tvm_target(spec)
    spaces, reason = design_spaces(workload.module, target)
    if not spaces:
        raise SystemExit(reason)
    by_key = {space.key: index for index, space in enumerate(spaces)}
    drawn = [random.randrange(len(spaces)) for _ in range(DRAFTS)]
    traces = [spaces[index].trace(spaces[index].draw(random)) for index in drawn]
    lowered = [
        one
        for one in Lowerer(workload.module, target, spec.cores).lower(traces, seed, set())
        if one.features is not None
    ]
    ranker = make_ranker("attention", seed)
    ranker.fit([])
    contexts = [Context(workload.module, fields_of(spec, known), one.trace, []) for one in lowered]
    scores = ranker.score([one.features for one in lowered if one.features is not None], contexts)
    indices = [by_key[instructions_key(one.trace)] for one in lowered]
    drafts = [Draft(at, spaces[at].decisions_of(one.trace)) for at, one in zip(indices, lowered, strict=True)]
    return spaces, drafts, scores


def recalled(drafted: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Share of the best TOP by `scores` among the best SHARE by `drafted`, and how much of the best score is kept."""
    kept = np.argsort(-np.asarray(drafted), kind="stable")[: round(SHARE * len(scores))]
    top = np.argsort(-np.asarray(scores), kind="stable")[:TOP]
    return {"recall": len(set(kept) & set(top)) / len(top), "best_kept": float(top[0] in set(kept))}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    recalls = [one["recall"] for one in rows]
    return {
        "recall_of_top_64": median(recalls),
        "least": min(recalls),
        "most": max(recalls),
        "best_kept": float(np.mean([one["best_kept"] for one in rows])),
        "chance": SHARE,
    }


if __name__ == "__main__":
    main()
