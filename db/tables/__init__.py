"""Every table of crosstune, one file per group of aggregates.

What holds everywhere:

- Times are UTC as float seconds since the epoch (`Moment`), so leases compare with an injected clock on any database.
- `id` is a public id (`job_…`, see `crosstune.db.ids`). Tables that records and measurements refer to (projects,
  targets, workloads, devices, workers, steps, cost models, records) have an integer primary key `key` as well: a column
  `x_key` holds such an integer, a column `x_id` a public id.
- Hashes are 32 raw bytes (`Hash`). Traces and modules are zlib-compressed UTF-8 JSON.
- Nothing is filtered by what is inside a JSON column.
- networks, jobs, builds, artifacts, events, idempotency keys and labels belong to a project; targets, devices, workers,
  hardware facts and workloads are global; records are shared or visible to their project only.
"""

from crosstune.db.tables.base import Base, Hash, Moment
from crosstune.db.tables.builds import Artifact, Build, CostModel
from crosstune.db.tables.hardware import Device, DeviceTarget, HardwareFact, Target, Worker
from crosstune.db.tables.jobs import Event, Job, Step, Task
from crosstune.db.tables.networks import Network, NetworkTask, Workload
from crosstune.db.tables.projects import ApiKey, Audit, IdempotencyKey, Label, Project
from crosstune.db.tables.records import Measurement, RankingCheck, Record

__all__ = [
    "ApiKey",
    "Artifact",
    "Audit",
    "Base",
    "Build",
    "CostModel",
    "Device",
    "DeviceTarget",
    "Event",
    "HardwareFact",
    "Hash",
    "IdempotencyKey",
    "Job",
    "Label",
    "Measurement",
    "Moment",
    "Network",
    "NetworkTask",
    "Project",
    "RankingCheck",
    "Record",
    "Step",
    "Target",
    "Task",
    "Worker",
    "Workload",
]
