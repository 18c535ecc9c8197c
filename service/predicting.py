"""What a version of the cost model makes of schedules that nobody has measured."""

from __future__ import annotations

from crosstune.db.engine import reading
from crosstune.db.repositories import schedules, workloads
from crosstune.service import cost_models, lookups, model_files
from crosstune.service.calibrated import known_attributes
from crosstune.service.errors import ScheduleRefused
from crosstune.service.measured_elsewhere import EVIDENCE_PER_TARGET, by_target
from crosstune.service.principal import Principal
from crosstune.service.schemas.cost_models import PredictIn, PredictOut
from crosstune.service.services import Services
from crosstune.tuner.child import ChildError


def predict(services: Services, caller: Principal, version: str, body: PredictIn) -> PredictOut:
    """From the decisions alone; what other targets measured of the workload is the model's evidence."""
    with reading(services.engine) as connection:
        cost_models.require_files(connection, version)
        folder = model_files.folder_of(connection, services.store, version)
        target = lookups.target(connection, body.target)
        workload = lookups.workload(connection, body.workload)
        known = schedules.elsewhere(connection, target.key, workload.key, caller.project_key, EVIDENCE_PER_TARGET)
        payload = {
            "model_folder": str(folder),
            "module": workloads.module_of(connection, workload.key),
            "target": target.spec,
            "attributes": known_attributes(connection, target.key),
            "elsewhere": [one.to_json() for one in by_target(connection, known)],
            "instructions": body.instructions,
            "decisions": body.decisions,
        }
    try:
        return PredictOut(version=version, scores=services.predictor.predict(payload)["scores"])
    except ChildError as error:
        raise ScheduleRefused(str(error)) from error
