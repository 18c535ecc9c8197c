"""A database that rounds are tuned with outside a service: what a step of the service reads and stores, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from crosstune.db import migrate
from crosstune.db.engine import create_engine, reading, retrying
from crosstune.db.repositories import projects, records, targets
from crosstune.service.steps.importing import store_workload
from crosstune.service.steps.tuning import new_candidate, round_request
from crosstune.tuner.contracts import CandidateResult, RoundRequest, TargetSpec, Workload
from crosstune.tuner.hardware import Origin
from crosstune.tuner.targets import default_name

BUILD_TIMEOUT_S, RUN_TIMEOUT_S = 10.0, 10.0


class TuningDatabase:
    """SQLite in a file, for one target and any number of workloads."""

    def __init__(self, path: Path, spec: TargetSpec, attributes: Mapping[str, Any] | None = None) -> None:
        """`attributes`: what is known of the target's hardware, which a service would have found out."""
        self.url, self.spec = f"sqlite:///{path}", spec
        migrate.upgrade(self.url)
        self._engine = create_engine(self.url)
        self._target_key = self.register(spec, attributes or {})
        with reading(self._engine) as connection:
            self._project_key = projects.get(connection).key

    def register(self, spec: TargetSpec, attributes: Mapping[str, Any]) -> int:
        """The target's key."""

        def write(connection: Connection) -> int:
            row, new = targets.register(
                connection, identity=spec.identity, name=default_name(spec), spec=spec.to_json()
            )
            if new and attributes:
                targets.add_facts(connection, row.key, dict(attributes), Origin.DETECTED)
            return row.key

        return retrying(self._engine, write)

    def add(self, workload: Workload) -> int:
        """The workload's key."""
        return retrying(self._engine, lambda connection: store_workload(connection, workload))

    def request(self, workload_key: int, trials: int, seed: int, ranker: str = "attention") -> RoundRequest:
        """A round with everything that is known."""
        with reading(self._engine) as connection:
            return round_request(
                connection,
                target=self.spec,
                target_key=self._target_key,
                workload_key=workload_key,
                project_key=self._project_key,
                trials=trials,
                seed=seed,
                build_timeout_s=BUILD_TIMEOUT_S,
                run_timeout_s=RUN_TIMEOUT_S,
                ranker=ranker,
            )

    def store(self, workload_key: int, found: Sequence[CandidateResult], target_key: int | None = None) -> None:
        """What was measured on the target, or on another one."""
        candidates = [new_candidate(one, None, None, None) for one in found]
        retrying(
            self._engine,
            lambda connection: records.store(
                connection,
                target_key=self._target_key if target_key is None else target_key,
                workload_key=workload_key,
                project_key=self._project_key,
                candidates=candidates,
            ),
        )

    def close(self) -> None:
        self._engine.dispose()
