"""Retrain step: records become a version of the cost model, judged beside the others, and perhaps the champion."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from crosstune import __version__
from crosstune.cost_model import retraining
from crosstune.cost_model.formats.record import Item, Record, WorkloadRow
from crosstune.cost_model.pretrained import dataset_folder
from crosstune.cost_model.retraining import PROGRESS, REQUEST, RESULT
from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import cost_models, devices, projects, steps, targets
from crosstune.db.repositories.listing import RecordFilter
from crosstune.db.repositories.steps import Claim
from crosstune.service import judging, model_files, training_records
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.heart import Held, Stop
from crosstune.service.model_files import SHIPPED
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.service.store import Stored
from crosstune.tuner import orphans
from crosstune.tuner.contracts import CrosstuneError
from crosstune.tuner.manifest import ArtifactRefused

PART_RECORDS = 50_000
"""Of a data set in the making: pruning holds one part in memory."""
MOST_JUDGED = 4
"""Versions that are judged again beside a new one, the newest; the champion and the shipped one come besides."""
POLL_S = 0.2
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")
NICEST = 19

Tell = Callable[[list[dict[str, Any]]], None]
"""Takes what the process has told since."""


class TrainingFailed(CrosstuneError):
    """No version came of it; the text says why and what would help."""


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    folder = context.settings.data_dir / "training" / claim.input["model_id"]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _make(context, claim, held, folder)
    except ModuleNotFoundError as missing:
        shutil.rmtree(folder, ignore_errors=True)
        raise TrainingFailed(retraining.missing_module(missing)) from missing
    except (Stopped, TrainingFailed):
        if held.stop in (None, Stop.CANCELLED):  # else it goes on elsewhere, or here, with what is done
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _make(context: WorkerContext, claim: Claim, held: Held, folder: Path) -> None:
    tell = partial(_tell, context, claim.input["model_id"])
    read_records(context, claim.project_id, held, folder / "records", claim.input["request"], tell)
    _write_request(context, claim, folder)
    run_process(context, held, folder, tell)
    result = json.loads((folder / RESULT).read_text())
    with reading(context.engine) as connection:
        project = projects.get(connection, claim.project_id).name
    model, learnt = (
        context.store.put_file(project, kind, model_files.pack(folder / name))
        for name, kind in ((retraining.MODEL, model_files.ARTIFACT_KIND), (retraining.KEPT, model_files.TRAINING_SET))
    )
    retrying(context.engine, lambda connection: _store(context, connection, claim, result, model, learnt))


def read_records(
    context: WorkerContext, project_id: str, held: Held, folder: Path, request: dict[str, Any], tell: Tell
) -> None:
    """What was measured, and `request` asks for, as a data set; whole, or made anew."""
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.importing import Origin, import_stream

    done = folder / "done"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    dataset = DatasetFolder(folder)
    with reading(context.engine) as connection:
        wanted = _filter(connection, request)
        project_key = projects.get(connection, project_id).key
        found = training_records.items(connection, project_key, wanted, judged=True, imported=request["imported"])
        for number, part in enumerate(_parts(found), 1):
            if held.should_stop():
                raise Stopped
            import_stream(dataset, f"records-{number}", part, Origin("crosstune"))
    records = dataset.totals()["records"]
    if not records:
        raise TrainingFailed("no record fits: measure something first, or widen the filters (targets, operators, ...)")
    done.touch()
    tell([{"phase": "read", "at": time.time(), "records": records}])


def _parts(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Parts of PART_RECORDS, each to be read to its end before the next."""
    named: dict[str, WorkloadRow] = {}
    while (first := next(items, None)) is not None:
        yield _part(chain([first], items), named)


def _part(items: Iterator[Item], named: dict[str, WorkloadRow]) -> Iterator[Item]:
    """Every part names the workloads of its records; `named` has those that were named before."""
    told: set[str] = set()
    records = 0
    for item in items:
        if isinstance(item, WorkloadRow):
            named[item.workload] = item
        elif isinstance(item, Record):
            if item.workload not in told:
                told.add(item.workload)
                yield named[item.workload]
            yield item
            records += 1
            if records == PART_RECORDS:
                return


def _filter(connection: Connection, request: dict[str, Any]) -> RecordFilter:
    return RecordFilter(
        target_keys=tuple(targets.get(connection, one).key for one in request["targets"]),
        operators=tuple(request["operators"]),
        since=None if request["since"] is None else datetime.fromisoformat(request["since"]).timestamp(),
        job_labels=tuple(request["labels"].items()),
    )


def _write_request(context: WorkerContext, claim: Claim, folder: Path) -> None:
    request = claim.input["request"]
    with reading(context.engine) as connection:
        base = request["base"]
        start = None if base is None else str(model_files.folder_of(connection, context.store, base))
        wanted = retraining.Request(
            kind=request["kind"],
            records=str(folder / "records"),
            shipped=str(dataset_folder()) if request["shipped_data"] else None,
            pruning=request["pruning"]["method"],
            keep=request["pruning"]["keep"],
            most_programs=request["pruning"]["most_programs"],
            start=start,
            seed=request["seed"],
            epochs=request["budget"]["epochs"],
            seconds=request["budget"]["seconds"],
            judged=_judged_beside(context, connection),
        )
    (folder / REQUEST).write_text(json.dumps(asdict(wanted)))


def _judged_beside(context: WorkerContext, connection: Connection) -> dict[str, str]:
    """Folders of versions; one whose files are damaged is told so by whoever judges."""
    newest = [one.id for one in cost_models.usable(connection)[:MOST_JUDGED]]
    return {one: folder_or_none(context, connection, one) for one in [*in_use(connection), *newest]}


def in_use(connection: Connection) -> list[str]:
    """Versions that are always judged, since the gates need them: the shipped one and the champion."""
    return [SHIPPED, judging.champion_version(connection)]


def folder_or_none(context: WorkerContext, connection: Connection, version: str) -> str:
    """The folder of a version's files; where they are gone or damaged one that holds nothing, as the judge will say."""
    try:
        return str(model_files.folder_of(connection, context.store, version))
    except (ArtifactRefused, OSError):
        return str(context.store.folder / "models" / version)


def run_process(context: WorkerContext, held: Held, folder: Path, tell: Tell) -> None:
    """Run the training's own process to its end; it stands still while a device of this machine measures."""
    progress = Progress(folder / PROGRESS, tell)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", retraining.__name__, str(folder)],
            env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.setpriority(os.PRIO_PROCESS, process.pid, NICEST)
    note = orphans.note(_notes(context), process.pid, None)
    try:
        with context.background.running(process.pid), OtherWorkers(context) as others:
            while process.poll() is None:
                progress.tell_new()
                if held.should_stop():
                    raise Stopped
                others.heed()
                time.sleep(POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        note.unlink(missing_ok=True)
    progress.tell_new()
    if process.returncode:
        said = (folder / "log").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise (TrainingFailed(said[-1]) if process.returncode == 2 else RuntimeError(f"the training died: {said[-1]}"))


def _notes(context: WorkerContext) -> Path:
    (context.template_folder / orphans.NOTES).mkdir(parents=True, exist_ok=True)
    return context.template_folder


class OtherWorkers:
    """This worker's own measuring pauses its background at once; what another worker measures on this machine is seen
    in the database, a moment later."""

    def __init__(self, context: WorkerContext) -> None:
        self._context, self._pause = context, ExitStack()
        self._measuring = False

    def __enter__(self) -> OtherWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pause.close()

    def heed(self) -> None:
        identity = self._context.identity
        with reading(self._context.engine) as connection:
            device = devices.get(connection, identity.device_id)
        measuring = device.owner not in (None, identity.owner) and device.lease_until > time.time()
        if measuring and not self._measuring:
            self._pause.enter_context(self._context.background.paused())
        elif self._measuring and not measuring:
            self._pause.close()
        self._measuring = measuring


class Progress:
    """Stores what the training tells, line by line; what an earlier attempt told is stored already."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self._path, self._tell = path, tell
        self._told = len(self._lines())

    def tell_new(self) -> None:
        lines = self._lines()
        self._tell([json.loads(line) for line in lines[self._told :]])
        self._told = len(lines)

    def _lines(self) -> list[str]:
        """Those that are whole."""
        return self._path.read_text().split("\n")[:-1] if self._path.exists() else []


def _tell(context: WorkerContext, model_id: str, lines: list[dict[str, Any]]) -> None:
    if lines:
        retrying(context.engine, lambda connection: cost_models.note_progress(connection, model_id, lines))


def _store(
    context: WorkerContext,
    connection: Connection,
    claim: Claim,
    result: dict[str, Any],
    model: Stored,
    learnt: Stored,
) -> None:
    steps.finish(connection, claim)
    model_id = claim.input["model_id"]
    project_id = claim.project_id
    files = add_artifact(connection, project_id, model_files.ARTIFACT_KIND, model, model_id)
    training_set = add_artifact(connection, project_id, model_files.TRAINING_SET, learnt, model_id)
    judged = result["judged"]
    judged["scores"][model_id] = judged["scores"].pop(retraining.MODEL)
    cost_models.finish(
        connection,
        model_id,
        data_fingerprint=result["training"]["fingerprint"],
        card={
            "training": result["training"],
            "training_set": training_set,
            "judged": judged,
            "code_version": __version__,
        },
        artifact_id=files,
    )
    if context.settings.auto_promote and judging.passes(connection, model_id):
        cost_models.promote(connection, model_id)
