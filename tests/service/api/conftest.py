"""The real application in process on real SQLite, without a worker; tests play the worker through the database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import Engine

from crosstune.db import migrate
from crosstune.db.engine import transaction
from crosstune.db.repositories import devices, networks, projects, records, steps, targets, workers, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.app import create_app
from crosstune.service.machine import Hardware
from crosstune.service.settings import Settings, read_settings
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.targets import Machine

ONNX_BYTES = b"\x08\x09 stands for an ONNX file: nothing here parses it"
TARGET = {"mcpu": "znver4", "cores": 2, "model": "Test Silicon 1", "name": "two-cores"}
TRACE = [[["SampleCategorical", [], [[1], [1.0]], ["v0"]]], [[0, 0]]]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class SharedHardware(Hardware):
    """Asks another one, and leaves it open at the end."""

    def __init__(self, shared: Hardware) -> None:
        self.shared = shared

    def machine(self) -> Machine:
        return self.shared.machine()

    def validate(self, spec: TargetSpec) -> None:
        self.shared.validate(spec)

    def template(self) -> Template:
        return self.shared.template()

    def close(self) -> None:
        """Nothing of its own to end."""


class Api:
    """A client of the application with the steps that many tests begin with."""

    def __init__(self, app: FastAPI, client: TestClient, settings: Settings) -> None:
        self.app, self.client, self.settings = app, client, settings

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.state.services.engine
        return engine

    def get(self, path: str, **options: Any) -> Response:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, key: str | None = None, **options: Any) -> Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.post(path, json={} if body is None else body, headers=headers, **options)

    def upload(self, content: bytes = ONNX_BYTES, key: str | None = None, **params: Any) -> Response:
        headers = {"Content-Type": "application/octet-stream", **({} if key is None else {"Idempotency-Key": key})}
        return self.client.post("/v1/networks", content=content, params=params, headers=headers)

    def target(self, **changes: Any) -> dict[str, Any]:
        return self.made(self.post("/v1/targets", TARGET | changes))

    def network(self, name: str = "net", tasks: int = 2) -> dict[str, Any]:
        """A network whose import is done: `tasks` workloads, called 1, 2, ... times."""
        network = self.made(self.upload(ONNX_BYTES + name.encode(), name=name))
        with transaction(self.engine) as connection:
            keys = [
                (
                    workloads.get_or_create(
                        connection,
                        sha256=sha256(f"workload {number}"),
                        version_free_key=sha256(f"graph {number}"),
                        name=f"fused_dense_{number}",
                        module="{}",
                        flops=1e6,
                        args=[["float32", [1, 8]], ["float32", [1, 8]]],
                        output_count=1,
                        tvm_version="0.27.0",
                        pipeline_version=1,
                    ).key,
                    number + 1,
                )
                for number in range(tasks)
            ]
            networks.mark_ready(
                connection,
                network["id"],
                graph_key=sha256(name),
                inputs=[["x", "float32", [1, 8]]],
                outputs=[["y", "float32", [1, 8]]],
                layout="NHWC",
                layout_note="every convolution could be converted",
                synthetic_weights=False,
                pipeline_version=1,
                tasks=keys,
            )
        return self.made(self.get(f"/v1/networks/{network['id']}"))

    def refuse(self, network_id: str) -> None:
        with transaction(self.engine) as connection:
            networks.refuse(connection, network_id, "unsupported-operator", "operator Foo is not supported")

    def worker(self, target_id: str | None = None, host: str = "machine-1") -> str:
        """A live worker on `host`, whose device stands for the target; returns the device's id."""
        with transaction(self.engine) as connection:
            workers.register(connection, host=host, pid=1, version="0.1.0", schema="head")
            device = devices.register(connection, name=host, kind="local", host=host)
            if target_id is not None:
                devices.stand_for(connection, device.key, targets.get(connection, target_id).key)
        return device.id

    def record(
        self, target_id: str, workload: int, latency_s: float | None, schedule: str = "s", quality: str = "full"
    ) -> str:
        """A measured schedule of workload number `workload` (a failed one without latency); returns its sha256."""
        measurement = NewMeasurement(
            conditions={"threads": 2},
            latencies_s=() if latency_s is None else (latency_s,) * 3,
            quality=quality,
            invalidity="compile" if latency_s is None else None,
        )
        identity = sha256(f"{schedule} of {workload}")
        with transaction(self.engine) as connection:
            records.store(
                connection,
                target_key=targets.get(connection, target_id).key,
                workload_key=workloads.get(connection, sha256(f"workload {workload}")).key,
                project_key=projects.get(connection).key,
                candidates=[NewCandidate(identity, TRACE, source="search", measurements=(measurement,))],
            )
        return identity

    def steps(self) -> list[tuple[str, str, Any]]:
        """(kind, queue, input) of every queued step."""
        with transaction(self.engine) as connection:
            found = steps.runnable(connection, 1000, announce_s=0.0)
            rows = [steps.get(connection, step.step_id) for step in found]
        return [(row.kind, row.queue, row.input) for row in rows]

    @staticmethod
    def made(response: Response) -> dict[str, Any]:
        assert response.status_code < 300, response.text
        value: dict[str, Any] = response.json()
        return value

    @staticmethod
    def problem(response: Response, status: int, slug: str) -> dict[str, Any]:
        """The problem that the answer must be."""
        assert response.headers["content-type"] == "application/problem+json", response.text
        value: dict[str, Any] = response.json()
        assert (response.status_code, value["type"]) == (status, f"urn:crosstune:problem:{slug}"), response.text
        assert value["status"] == status
        assert value["title"] and value["detail"] and value["trace_id"] == response.headers["x-trace-id"]
        return value


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "crosstune.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    (tmp_path / "crosstune.db").write_bytes(migrated.read_bytes())
    return read_settings(
        data_dir=tmp_path, embedded_worker=False, events_poll_s=0.02, max_upload_bytes=64 * 1024, max_json_bytes=4096
    )


@pytest.fixture(scope="session")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardware]:
    """One for all applications, since it takes seconds to start the process that it asks."""
    found = Hardware(tmp_path_factory.mktemp("children"))
    yield found
    found.close()


@pytest.fixture
def api(settings: Settings, hardware: Hardware) -> Iterator[Api]:
    app = create_app(settings)
    app.state.services.hardware = SharedHardware(hardware)
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50000)) as client:
        yield Api(app, client, settings)
