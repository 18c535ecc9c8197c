"""Real services as processes of their own, on a data folder that outlives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.networks import tiny


class ServiceProcess:
    """`crosstune serve` on one data folder: started, killed, started again."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir, self._environment = data_dir, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.starts = 0

    def start(self) -> str:
        self.starts += 1
        log = (self.data_dir.parent / f"{self.data_dir.name}-{self.starts}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crosstune.service.cli", "serve"]  # noqa: RUF005
            + ["--port", "0", "--json", "--data-dir", str(self.data_dir)],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        return self.url

    def kill(self) -> None:
        """kill -9, as the kernel or a person would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)


@pytest.fixture
def service_process(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    made: list[ServiceProcess] = []

    def make(name: str = "data", **environment: str) -> ServiceProcess:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(ServiceProcess(folder, **environment))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("networks") / "tiny.onnx")
