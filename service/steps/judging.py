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
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.service.steps.retraining import Tell, folder_or_none, read_records, run_process


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    folder = context.settings.data_dir / "training" / claim.step_id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _judge(context, claim, held, folder)
    except Stopped:
        if held.stop is not Stop.SHUTDOWN:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _judge(context: WorkerContext, claim: Claim, held: Held, folder: Path) -> None:
    tell: Tell = lambda lines: None  # noqa: E731 - there is no version to tell it of
    read_records(context, claim.project_id, held, folder / "records", RetrainIn().model_dump(mode="json"), tell)
    with reading(context.engine) as connection:
        versions = _with_those_in_use(connection, claim.input["versions"])
        folders = {version: folder_or_none(context, connection, version) for version in versions}
    wanted = retraining.Request.to_judge(str(folder / "records"), folders)
    (folder / REQUEST).write_text(json.dumps(asdict(wanted)))
    run_process(context, held, folder, tell)
    judged = json.loads((folder / RESULT).read_text())["judged"]
    retrying(context.engine, lambda connection: _store(connection, claim, judged))


def _with_those_in_use(connection: Connection, versions: list[str]) -> list[str]:
    """The champion and the shipped one are judged too: the gates need them."""
    in_use = [SHIPPED, *(one.id for one in cost_models.usable(connection) if one.status == "champion")]
    return list(dict.fromkeys([*versions, *in_use]))


def _store(connection: Connection, claim: Claim, judged: dict[str, Any]) -> None:
    steps.finish(connection, claim)
    for version in judged["scores"]:
        if version != SHIPPED:
            cost_models.note_judged(connection, version, judged)
