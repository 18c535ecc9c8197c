"""Judge step: versions of the cost model, old ones too, on the same programs, so that any two compare."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from crosstune.cost_model import retraining
from crosstune.cost_model.retraining import REQUEST, RESULT
from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import cost_models, steps
from crosstune.db.repositories.steps import Claim
from crosstune.service.heart import Held, Stop
from crosstune.service.model_files import SHIPPED
from crosstune.service.schemas.cost_models import RetrainIn
from crosstune.service.steps.context import WorkerContext
from crosstune.service.steps.retraining import folder_or_none, in_use, read_records, run_process


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    folder = context.settings.data_dir / "training" / claim.step_id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _judge(context, claim, held, folder)
    finally:
        if held.stop is not Stop.SHUTDOWN:  # then it goes on here, with what is done
            shutil.rmtree(folder, ignore_errors=True)


def _judge(context: WorkerContext, claim: Claim, held: Held, folder: Path) -> None:
    everything = RetrainIn().model_dump(mode="json")
    read_records(context, claim.project_id, held, folder / "records", everything, _tell_nobody)
    with reading(context.engine) as connection:
        versions = dict.fromkeys([*claim.input["versions"], *in_use(connection)])
        folders = {version: folder_or_none(context, connection, version) for version in versions}
    wanted = retraining.Request.to_judge(str(folder / "records"), folders)
    (folder / REQUEST).write_text(json.dumps(asdict(wanted)))
    run_process(context, held, folder, _tell_nobody)
    judged = json.loads((folder / RESULT).read_text())["judged"]
    retrying(context.engine, lambda connection: _store(connection, claim, judged))


def _tell_nobody(lines: list[dict[str, Any]]) -> None:
    """No version is in the making whose progress it could be."""


def _store(connection: Connection, claim: Claim, judged: dict[str, Any]) -> None:
    steps.finish(connection, claim)
    for version in judged["scores"]:
        if version != SHIPPED:
            cost_models.note_judged(connection, version, judged)
