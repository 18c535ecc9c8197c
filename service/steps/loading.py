"""Load step: records of another service, for workloads that this one knows, to be tried before they are believed.

Programs are not taken: what is run here comes from networks that were imported here. A schedule that has a record on
its target stays as it is, so that loading twice changes nothing.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.db.engine import reading, retrying
from crosstune.db.judging import FULL, QUICK, Status
from crosstune.db.repositories import artifacts, projects, records, schedules, steps, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.db.repositories.steps import Claim
from crosstune.service.heart import Held
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.tuner import archive
from crosstune.tuner.contracts import CrosstuneError, TargetRefused, sha256_json
from crosstune.tuner.targets import default_name, parse

OPERATION = "operations.read_records:run"
TIMEOUT_S = 120.0
STRETCH = 2000
SOURCE = "import"
OUTCOMES = LOADED, KNOWN, UNKNOWN, UNUSABLE = (
    "loaded",
    "known already",
    "of workloads that are not known here",
    "not usable",
)
FACTS_ORIGIN = "imported"
HASH = re.compile(r"[0-9a-f]{64}")


class RecordsRefused(CrosstuneError):
    """The upload is no data set of crosstune."""


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    folder = context.settings.data_dir / "loading" / claim.step_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found: Counter[str] = Counter()
    try:
        with reading(context.engine) as connection:
            source = context.store.path(artifacts.get(connection, claim.input["artifact_id"]).uri)
        for stretch in _stretches(context, held, archive.unpack(source, folder)):
            found += retrying(context.engine, partial(_store, claim=claim, rows=stretch))
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def finish(connection: Connection) -> None:
        steps.note_exit(connection, claim, ", ".join(f"{found[outcome]} {outcome}" for outcome in OUTCOMES))
        steps.finish(connection, claim)

    retrying(context.engine, finish)


def _stretches(context: WorkerContext, held: Held, folder: Path) -> Iterator[list[dict[str, Any] | None]]:
    """Rows as a child has read them."""
    start = 0
    with context.template.spawn("records") as child, held.on_stop(child.close):
        while True:
            answer = child.call(OPERATION, {"folder": str(folder), "start": start, "limit": STRETCH}, TIMEOUT_S)
            if "refused" in answer:
                raise RecordsRefused(f"the upload is no data set of crosstune: {answer['refused']}")
            if held.should_stop():
                raise Stopped
            if answer["rows"]:
                yield answer["rows"]
            if len(answer["rows"]) < STRETCH:
                return
            start += STRETCH


def _store(connection: Connection, claim: Claim, rows: list[dict[str, Any] | None]) -> Counter[str]:
    """How many rows came to which of OUTCOMES."""
    project_key = projects.get(connection, claim.project_id).key
    usable = [row for row in rows if row is not None and HASH.fullmatch(row["workload"])]
    found = Counter({UNUSABLE: len(rows) - len(usable)})
    ordered = sorted(usable, key=_place)
    for (_, workload), group in groupby(ordered, key=_place):
        own = list(group)
        row = workloads.find(connection, [workload])
        target_key = _target(connection, own[0]["target"])
        if not row:
            found[UNKNOWN] += len(own)
        elif target_key is None:
            found[UNUSABLE] += len(own)
        else:
            known = schedules.known_hashes(connection, target_key, row[0].key)
            new = {one.schedule_sha256: one for one in map(_candidate, own) if one.schedule_sha256 not in known}
            records.store(
                connection,
                target_key=target_key,
                workload_key=row[0].key,
                project_key=project_key,
                candidates=list(new.values()),
            )
            found[LOADED] += len(new)
            found[KNOWN] += len(own) - len(new)
    return found


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return sha256_json(row["target"]), str(row["workload"])


def _target(connection: Connection, fields: dict[str, Any]) -> int | None:
    """The target's key, registered with what is told of its hardware when it is new; None where it is no target."""
    description = dict(fields)
    attributes = description.pop("attributes", None) or {}
    try:
        spec = parse(description)
    except TargetRefused:
        return None
    row, new = targets.register(
        connection, identity=spec.identity, name=f"{default_name(spec)}-{spec.identity[:8]}", spec=spec.to_json()
    )
    told = {name: value for name, value in attributes.items() if isinstance(value, int | float | str)}
    if new and told:
        targets.add_facts(connection, row.key, told, FACTS_ORIGIN)
    return row.key


def _candidate(row: dict[str, Any]) -> NewCandidate:
    features = None if row["features"] is None else base64.b64decode(row["features"])
    return NewCandidate(
        schedule_sha256=sha256_json(row["trace"]),
        trace=row["trace"],
        measurements=(
            NewMeasurement(
                tuple(row["latencies_s"]), row["quality"] if row["quality"] == FULL else QUICK, Status.IMPORTED
            ),
        ),
        features=features,
        feature_layout=None if features is None else FEATURE_LAYOUT,
        source=SOURCE,
    )
