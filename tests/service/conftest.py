"""The real application on a loopback port with real SQLite and no worker; a test plays the worker's part."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import update

from crosstune.db.engine import transaction
from crosstune.db.repositories import artifacts, builds, events, jobs, networks, targets, workloads
from crosstune.db.repositories.jobs import JobState
from crosstune.db.tables import Step
from crosstune.service import database
from crosstune.service.app import create_app
from crosstune.service.client import Client
from crosstune.service.schemas.builds import BuildIn, BuildOut
from crosstune.service.schemas.jobs import Budget, JobIn
from crosstune.service.settings import Settings
from crosstune.tuner.contracts import TargetSpec


class LiveService:
    """`url` answers until `stop`; `restart` gives another process's view of the same data on the same port."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir, embedded_worker=False, events_poll_s=0.02)
        database.prepare(self.settings)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> Any:
        return self.app.state.services.engine

    def start(self) -> None:
        self.app = create_app(self.settings)
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self.app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < deadline_s and self._thread.is_alive(), "the service did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(20)

    def restart(self) -> None:
        self.stop()
        self.start()

    def target(self, name: str) -> str:
        """The id of a target in the database; registering one through the API asks LLVM, which takes seconds."""
        spec = TargetSpec(kind="llvm", mcpu="x86-64", cores=2, model=f"Silicon of {name}", triple="x86_64-linux-gnu")
        with transaction(self.engine) as connection:
            return targets.register(connection, identity=spec.identity, name=name, spec=spec.to_json())[0].id

    def know_hardware(self, name: str) -> None:
        """What a calibration would store."""
        rates = {"peak_flops_per_s": 2e11, "memory_bytes_per_s": 2e10}
        with transaction(self.engine) as connection:
            targets.add_facts(connection, targets.get(connection, name).key, rates, "calibrated")

    def job_in(self, client: Client) -> JobIn:
        """A job of ten trials for a network that stays in its import, so that nothing happens by itself."""
        network = client.upload_network(b"a network of its own")
        return JobIn(network=network.id, target=self.target("test-silicon"), budget=Budget(trials=10))

    def refuse_network(self, network_id: str, code: str, detail: str) -> None:
        with transaction(self.engine) as connection:
            networks.refuse(connection, network_id, code, detail)

    def play(
        self, job_id: str, events_count: int, pause_s: float = 0.0, ending: JobState | None = JobState.SUCCEEDED
    ) -> None:
        """What a worker would do to the job's row and events: `events_count` rounds, then the ending."""
        self._move(job_id, JobState.RUNNING)
        for number in range(events_count):
            time.sleep(pause_s)
            with transaction(self.engine) as connection:
                jobs.count(
                    connection,
                    job_id,
                    trials=1,
                    searched_s=0.5,
                    untuned_latency_s=0.010,
                    best_latency_s=0.010 / (1 + number),
                )
                events.append(connection, job_id, "round", {"trials": number + 1})
        if ending is JobState.SUCCEEDED:
            self._move(job_id, JobState.BUILDING)
        if ending is not None:
            self._move(job_id, ending)

    def make_ready(self, network_id: str) -> None:
        """What an import would store, of a network with one workload."""
        with transaction(self.engine) as connection:
            workload = workloads.get_or_create(
                connection,
                sha256="1" * 64,
                version_free_key="2" * 64,
                name="fused_conv2d_add_relu",
                module="{}",
                flops=2e6,
                args=[["float32", [1, 8]], ["float32", [1, 8]]],
                output_count=1,
                tvm_version="0.27",
                pipeline_version=1,
            )
            networks.mark_ready(
                connection,
                network_id,
                graph_key="3" * 64,
                inputs=[["x", "float32", [1, 8]]],
                outputs=[["y", "float32", [1, 8]]],
                layout="NHWC",
                layout_note="every convolution takes NHWC",
                synthetic_weights=False,
                pipeline_version=1,
                tasks=[(workload.key, 3)],
            )
            connection.execute(update(Step).where(Step.kind == "import").values(state="done"))

    def build(self, client: Client) -> BuildOut:
        """A build that waits for a step."""
        network = client.upload_network(b"a network to build")
        self.make_ready(network.id)
        return client.create_build(BuildIn(network=network.id, target=self.target("test-silicon")))

    def finish_build(self, build_id: str, artifact: Path) -> None:
        """What a build step would store, with `artifact` as its bytes."""
        content = artifact.read_bytes()
        (self.settings.data_dir / "artifacts" / "made").mkdir(parents=True, exist_ok=True)
        uri = f"artifacts/made/{artifact.name}"
        (self.settings.data_dir / uri).write_bytes(content)
        with transaction(self.engine) as connection:
            build = builds.get(connection, build_id)
            stored = artifacts.add(
                connection,
                project_id=build.project_id,
                sha256=hashlib.sha256(content).hexdigest(),
                kind="build",
                size_bytes=len(content),
                uri=uri,
            )
            builds.finish(
                connection,
                build_id,
                manifest={},
                tvm_version="0.27",
                artifact_id=stored.id,
                tuned_latency_s=0.002,
                untuned_latency_s=0.010,
                reference_latency_s=0.003,
                largest_error=1e-6,
            )

    def fail_build(self, build_id: str, reason: str) -> None:
        with transaction(self.engine) as connection:
            builds.fail(connection, build_id, reason)

    def last_sequence(self, job_id: str) -> int:
        with transaction(self.engine) as connection:
            return jobs.get(connection, job_id).event_sequence

    @contextmanager
    def background(self, work: Callable[[], None]) -> Iterator[None]:
        """`work` in a thread for as long as the block lasts; what it raises is raised."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  handed to the test's thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()
        for failure in failures:
            raise failure

    def _move(self, job_id: str, state: JobState) -> None:
        with transaction(self.engine) as connection:
            jobs.transition(connection, job_id, state)


@pytest.fixture
def live_service(tmp_path: Path) -> Iterator[LiveService]:
    service = LiveService(tmp_path / "data")
    yield service
    service.stop()
