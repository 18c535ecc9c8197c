"""Train a version of the cost model from measured programs, and judge it beside others: a process of its own.

`python -m crosstune.cost_model.retraining FOLDER` reads FOLDER/request.json and the data sets that it names, and writes
FOLDER/progress.jsonl (a line for each thing done), FOLDER/model and, last, FOLDER/result.json. What it has finished is
not done again. It can be stopped (SIGSTOP) and continued at any time.

Every version is judged on the same programs: those of held-out networks, and of one workload in five by its key
(`hold_out.is_judged`), on whatever target. Retraining never learns from these.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crosstune.cost_model.errors import CostModelError

REQUEST, PROGRESS, RESULT, MODEL = "request.json", "progress.jsonl", "result.json", "model"
KEPT = "kept"
MOST_THREADS = 8
LEAST_GROUPS = 2
ATTENTION, XGBOOST, JUDGE = "attention", "xgboost", "judge"


class TooLittle(CostModelError):
    """Not enough was measured to learn from; the text says what is there and what is needed."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to train, from what, and whom to judge beside it."""

    kind: str
    """attention | xgboost, or judge: train nothing"""
    records: str
    """Folder of the data set of what was measured; judged programs are marked as held out in it."""
    shipped: str | None
    """Folder of one that was pruned before, to learn from besides."""
    pruning: str
    """A name in cost_model.pruning.methods.METHODS."""
    keep: float
    """Share of the records that training sees."""
    most_programs: int
    """Programs that training sees at most, so that it fits into memory."""
    start: str | None
    """Folder of the model whose network it begins with; None: from scratch."""
    seed: int
    epochs: int
    seconds: float
    """No epoch begins after so long."""
    judged: dict[str, str]
    """Folders of the models to judge beside the new one, by version."""

    @classmethod
    def to_judge(cls, records: str, judged: dict[str, str]) -> Request:
        """Judge versions on the data set, and no more."""
        return cls(
            kind=JUDGE,
            records=records,
            shipped=None,
            pruning="random",
            keep=1.0,
            most_programs=1,
            start=None,
            seed=0,
            epochs=0,
            seconds=0.0,
            judged=judged,
        )


def run(folder: Path) -> None:
    """Raises TooLittle, or another CostModelError, before anything is written that counts."""
    request = Request(**json.loads((folder / REQUEST).read_text()))
    tell = _teller(folder)
    training = None if request.kind == JUDGE else _trained(request, folder, tell)
    new = {} if training is None else {MODEL: str(folder / MODEL)}
    judged = judge(Path(request.records), {**request.judged, **new}, tell)
    scratch = folder / f"{RESULT}.part"
    scratch.write_text(json.dumps({"training": training, "judged": judged}))
    scratch.replace(folder / RESULT)


def _trained(request: Request, folder: Path, tell: Callable[..., None]) -> dict[str, Any]:
    from crosstune.cost_model.attention.training_set import training_set

    done = folder / MODEL / "done.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    groups, facts = _learnt_from(request, folder, tell)
    given = training_set(groups, request.seed, threads())
    facts |= {"groups": len(given.fitted), "validation_groups": len(given.validation), "trees": len(given.trees)}
    tell("prepared", **facts)
    if request.kind == ATTENTION:
        facts |= _fit_network(request, given, folder / MODEL, facts, tell)
    else:
        from crosstune.cost_model.attention.card import write_card

        (folder / MODEL).mkdir(exist_ok=True)
        given.trees.save(folder / MODEL)
        write_card(folder / MODEL, {"kind": XGBOOST, "trees": len(given.trees), "data": facts})
    done.write_text(json.dumps(facts))
    return facts


def _fit_network(
    request: Request, given: Any, folder: Path, facts: Mapping[str, Any], tell: Callable[..., None]
) -> dict[str, Any]:
    from crosstune.cost_model.attention import weights
    from crosstune.cost_model.attention.training import Settings, train

    settings = Settings(seed=request.seed, epochs=request.epochs, seconds=request.seconds)
    start = None if request.start is None else weights.load(Path(request.start))[0]
    trained = train(given.fitted, given.validation, settings, lambda row: tell("epoch", **row), start)
    learnt = {"best_epoch": trained.best_epoch, "seconds": trained.seconds, "history": trained.history}
    weights.save(folder, trained.model, given.trees, {"settings": settings.to_json(), "data": dict(facts), **learnt})
    return learnt


def _learnt_from(request: Request, folder: Path, tell: Callable[..., None]) -> tuple[list[Any], dict[str, Any]]:
    """Groups to train on, and what they are."""
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.loading import load_groups
    from crosstune.cost_model.dataset.pruning import prune
    from crosstune.cost_model.dataset.reading import held_out_workloads
    from crosstune.cost_model.pruning.methods import METHODS

    records, kept = DatasetFolder(Path(request.records)), DatasetFolder(folder / KEPT)
    total = max(1, records.totals()["records"])
    if not kept.parts():
        method = METHODS[request.pruning](min(request.keep, request.most_programs / total))
        report = prune(records, kept, method, request.seed)
        tell("pruned", **report.to_json())
    own = load_groups(kept)
    judged = held_out_workloads(records)
    shipped = [] if request.shipped is None else load_groups(DatasetFolder(Path(request.shipped)))
    groups = [*own, *(one for one in shipped if one.workload not in judged)]
    if len({one.workload for one in groups}) < LEAST_GROUPS:
        raise TooLittle(
            f"{len(own)} workloads with at least 8 programs that ran are left to learn from, after one workload in five"
            f" was set aside to judge by; {LEAST_GROUPS} are needed: tune more networks, or widen the filters"
        )
    return groups, {
        "fingerprint": kept.fingerprint(),
        "records": total,
        "own_groups": len(own),
        "programs": sum(len(one.programs) for one in groups),
    }


def judge(records: Path, models: Mapping[str, str], tell: Callable[..., None]) -> dict[str, Any]:
    """What each model makes of the held-out programs of a data set: rows of workload, target and metrics, by version.

    A model that cannot be read has a text in place of its rows.
    """
    from crosstune.cost_model.attention.card import UnusableModel
    from crosstune.cost_model.attention.prepared import prepare
    from crosstune.cost_model.attention.scoring import Scorer
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.loading import load_groups
    from crosstune.cost_model.evaluation import group_score

    folder = DatasetFolder(records)
    groups = [one for one in load_groups(folder) if one.held_out] if folder.parts() else []
    prepared = prepare(groups, groups)
    found: dict[str, Any] = {}
    for version, path in models.items():
        try:
            scorer = Scorer(Path(path), threads())
        except UnusableModel as error:
            found[version] = str(error)
            continue
        found[version] = [asdict(group_score(one.group, scorer.score(one.batch))) for one in prepared]
        tell("judged", version=version, groups=len(prepared))
    return {"fingerprint": folder.fingerprint() if folder.parts() else "", "scores": found}


def threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def missing_module(missing: ModuleNotFoundError) -> str:
    return f"training needs {missing.name}: pip install 'crosstune[training]', or 'crosstune[trees]' for kind xgboost"


def _teller(folder: Path) -> Callable[..., None]:
    def tell(phase: str, **facts: Any) -> None:
        with (folder / PROGRESS).open("a") as file:
            file.write(json.dumps({"phase": phase, "at": time.time(), **facts}) + "\n")

    return tell


def main(arguments: Sequence[str]) -> int:
    """2: the request cannot be met, and standard error says why; anything else but 0 is a fault of ours."""
    try:
        run(Path(arguments[0]))
    except CostModelError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        print(missing_module(missing), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
