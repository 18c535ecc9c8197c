"""Which schedules a build uses, as its row keeps them.

Each pin has `workload` (sha256), `label` and `schedule_sha256`:

| label | besides |
|---|---|
| `measured` | `latency_s`, `record` |
| `transferred` | `latency_s` where it was measured, its `record` there; once built: what is expected here |
| `predicted` | no schedule until the build's step has one proposed; then its `trace`, and what is expected |
| `default` | no schedule, but the `reason` why there is none although one was wanted |

Workloads without a pin get their default schedule. Pins of earlier versions have no label: they are `measured`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from crosstune.db.repositories import schedules
from crosstune.db.repositories.schedules import BestSchedule
from crosstune.service.schemas.schedules import Label

Pin = dict[str, Any]


def best_pins(connection: Connection, target_key: int, workload_keys: Mapping[str, int], project_key: int) -> list[Pin]:
    """For each workload (sha256 -> key) the best schedule that is known now; what nobody knows is to be predicted."""
    keys = list(workload_keys.values())
    measured = schedules.best(connection, target_key, keys, project_key)
    missing = [key for key in keys if key not in measured]
    elsewhere = schedules.transferred(connection, target_key, missing, project_key) if missing else {}
    return [_best(sha256, measured.get(key), elsewhere.get(key)) for sha256, key in workload_keys.items()]


def measured_pin(workload: str, schedule_sha256: str, latency_s: float, record_id: str) -> Pin:
    return _known(Label.MEASURED, workload, schedule_sha256, latency_s, record_id)


def default_pin(workload: str, reason: str) -> Pin:
    return {"label": Label.DEFAULT.value, "workload": workload, "schedule_sha256": None, "reason": reason}


def stored(pin: Pin) -> Pin:
    """Without a trace that its record keeps."""
    return {name: value for name, value in pin.items() if name != "trace" or "record" not in pin}


def label_of(pin: Pin) -> Label:
    return Label(pin.get("label", Label.MEASURED))


def _best(workload: str, measured: BestSchedule | None, elsewhere: BestSchedule | None) -> Pin:
    if measured is not None:
        return measured_pin(workload, measured.schedule_sha256, measured.latency_s, measured.record_id)
    if elsewhere is not None:
        row = elsewhere
        return _known(Label.TRANSFERRED, workload, row.schedule_sha256, row.latency_s, row.record_id)
    return {"label": Label.PREDICTED.value, "workload": workload, "schedule_sha256": None}


def _known(label: Label, workload: str, schedule_sha256: str, latency_s: float, record_id: str) -> Pin:
    return {
        "label": label.value,
        "workload": workload,
        "schedule_sha256": schedule_sha256,
        "latency_s": latency_s,
        "record": record_id,
    }
