"""A service of several processes on this machine: `make cluster`

docker-compose.yml's commands as plain processes, on a database of its own in the local PostgreSQL and a Redis of its
own: the migration, the API, and as many workers as there are cores, each with one core, which makes each a device of
its own. Needs PostgreSQL (CROSSTUNE_TEST_POSTGRES_URL, a role that may create databases) and redis-server.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine, make_url, text

from crosstune.service.working import on_signals

COMPOSE = Path(__file__).parent.parent / "docker-compose.yml"
POSTGRES_URL = os.environ.get("CROSSTUNE_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
API, WORKER, REDIS = "api", "worker", "redis"
START_S, STOP_S = 60.0, 40.0


class ClusterFailed(Exception):
    """A process did not start; the text holds the end of what it said."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, help="as many as there are cores unless told")
    parser.add_argument("--port", type=int, default=8642)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crosstune-cluster-") as folder, database() as url:
        cluster = Cluster(Path(folder), url, port=options.port)
        stopped = threading.Event()
        with on_signals(stopped.set), cluster.running(options.workers or cores()):
            print(f"crosstune answers at {cluster.url}; what its processes say is in {folder}; Ctrl-C ends it")
            stopped.wait()


def cores() -> int:
    return len(os.sched_getaffinity(0))


@contextmanager
def database() -> Iterator[str]:
    """The URL of an empty database, which is dropped at the end."""
    url = make_url(POSTGRES_URL).set(drivername="postgresql+psycopg")
    name = f"crosstune_cluster_{os.getpid()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        engine.dispose()


class Cluster:
    """The processes by name: `redis`, `api-0`, `worker-0`, ..."""

    def __init__(self, folder: Path, database_url: str, port: int = 0, lease_s: float | None = None) -> None:
        self.folder = folder
        self.redis_port = free_port()
        self._port = port or free_port()
        self._services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "CROSSTUNE_DATABASE_URL": database_url,
            "CROSSTUNE_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "CROSSTUNE_STORE_DIR": str(folder / "store"),
            "CROSSTUNE_PORT": str(self._port),
            **({} if lease_s is None else {"CROSSTUNE_LEASE_S": str(lease_s)}),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextmanager
    def running(self, workers: int, apis: int = 1) -> Iterator[None]:
        try:
            self.start_redis()
            self.migrate()
            for number in range(apis):
                self.start_api(number)
            for number in range(workers):
                self.start_worker(number)
            yield
        finally:
            self.stop()

    def migrate(self) -> None:
        done = subprocess.run(
            self.command("migrate", self.folder), env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterFailed(done.stderr[-2000:])

    def start_redis(self) -> None:
        folder = self.folder / REDIS
        folder.mkdir(exist_ok=True)
        command = [*self.command(REDIS, folder), "--port", str(self.redis_port), "--dir", str(folder)]
        self._start(REDIS, [*command, "--bind", "127.0.0.1"])
        wait_until(lambda: listens(self.redis_port), "redis-server does not listen")

    def start_api(self, number: int = 0) -> None:
        """All share one port."""
        name = f"{API}-{number}"
        self._start(name, [*self.command(API, self.folder / name), "--json"], announces=True)

    def start_worker(self, number: int) -> None:
        """With one core, which makes it a device of its own."""
        name = f"{WORKER}-{number}"
        command = [*self.command(WORKER, self.folder / name), "--devices", f"core-{number}", "--json"]
        core = sorted(os.sched_getaffinity(0))[number % cores()]
        self._start(name, command, core, announces=True)

    def command(self, service: str, data: Path) -> list[str]:
        """What docker-compose.yml runs, with `data` for the container's folder."""
        found = [str(data) if word == "/data" else word for word in self._services[service]["command"]]
        own = Path(sys.executable).parent / found[0]
        return [str(own) if own.exists() else found[0], *found[1:]]

    def kill(self, name: str) -> None:
        """As when the power goes: the process, not its children."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """All of them, workers first."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, command: Sequence[str], core: int | None = None, announces: bool = False) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=subprocess.PIPE if announces else log,
                stderr=log,
                start_new_session=True,
            )
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        self.processes[name] = process
        if announces and announcement(process) is None:
            raise ClusterFailed(f"{name} did not start: {self.said(name)[-2000:]}")


def announcement(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """The JSON line that a process says when it is ready; None when it ends or says nothing in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    line = process.stdout.readline() if ready else b""
    if not line:
        return None
    found: dict[str, Any] = json.loads(line)
    return found


def wait_until(true: Callable[[], bool], otherwise: str, seconds: float = START_S) -> None:
    until_s = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until_s:
            raise ClusterFailed(otherwise)
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
