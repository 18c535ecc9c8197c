"""A real Redis on a port of its own, that tests stop, start and flush."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.cluster import free_port, listens, wait_until

START_S = 10.0


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: listens(self.port), "redis-server does not listen", START_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def flush(self) -> None:
        import redis

        redis.Redis(port=self.port).flushall()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Skips where there is no redis-server."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
