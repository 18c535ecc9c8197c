"""`crosstune serve`: one process that owns a socket, the schema check and a graceful end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from crosstune.service import database, running
from crosstune.service.settings import Settings
from crosstune.tuner.contracts import CrosstuneError

SHUTDOWN_TIMEOUT_S = 3
"""Streams that are still open then are cut; their clients resume elsewhere by Last-Event-ID."""


class ServeRefused(CrosstuneError):
    """The service cannot start here; the text says what to do."""


class AnnouncedServer(uvicorn.Server):
    """A server that says where it is once it answers, and takes that back first when it stops."""

    def __init__(self, config: uvicorn.Config, data_dir: Path, url: str, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._data_dir, self._url, self._on_ready = data_dir, url, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            running.announce(self._data_dir, running.RunningService(self._url, os.getpid()))
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        running.withdraw(self._data_dir, os.getpid())
        await super().shutdown(sockets=sockets)


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` gets the URL once requests are answered.

    :raises ServeRefused: the port is taken, or a service runs on this data folder already.
    :raises DatabaseRefused: the database does not answer, or its tables are not this version's.
    """
    database.make_data_dir(settings)
    _refuse_second_service(settings)
    database.prepare(settings)
    listener = _listen(settings.host, settings.port, settings.share_port)
    url = _url(settings.host, listener.getsockname()[1])
    from crosstune.service.app import create_app

    config = uvicorn.Config(
        create_app(settings),
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        lifespan="on",
    )
    server = AnnouncedServer(config, settings.data_dir, url, lambda: on_ready(url))
    # uvicorn ends itself on both signals and then raises them again for the handlers it found: these, so that a
    # graceful end is exit code 0.
    previous = {number: signal.signal(number, _already_handled) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        listener.close()


def _already_handled(number: int, frame: Any) -> None:
    """Nothing is left to do: the server has stopped."""


def _refuse_second_service(settings: Settings) -> None:
    found = running.find(settings.data_dir)
    if found is not None and settings.database_url.startswith("sqlite") and found.pid != os.getpid():
        raise ServeRefused(
            f"a service runs on {settings.data_dir} already, at {found.url} (process {found.pid}); "
            "use it, stop it, or give another --data-dir"
        )


def _listen(host: str, port: int, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only then; with it each answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:  # the kernel deals connections out among those who listen
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise ServeRefused(
            f"cannot listen on {host} port {port}: {error.strerror or error}; --port 0 takes a free one"
        ) from error
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"
