"""Calibrate step: what this machine really does, stored as facts of the target."""

from __future__ import annotations

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import devices, steps, targets
from crosstune.db.repositories.steps import Claim
from crosstune.service.heart import Held
from crosstune.service.steps.context import WorkerContext
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.targets import calibrate


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    with reading(context.engine) as connection:
        target = targets.get(connection, claim.input["target_id"])
    spec = TargetSpec.from_json(target.spec)
    with context.measuring(held):
        found = calibrate(context.template, spec, context.machine)
    facts = {name: attribute.value for name, attribute in found.items()}

    def store(connection: Connection) -> None:
        steps.finish(connection, claim)
        targets.add_facts(connection, target.key, facts, "calibrated")
        devices.store_calibration(connection, context.identity.device_key, {"target": target.id, **facts})

    retrying(context.engine, store)
