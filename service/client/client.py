"""`Client`: the API's operations, and what people do with several of them in a row."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel

from crosstune.service.client.errors import ApiError, ClientError, WaitedTooLong
from crosstune.service.client.event_stream import EventStream
from crosstune.service.client.operations import Operations, job_path
from crosstune.service.client.transport import Transport
from crosstune.service.schemas.builds import BuildOut, BuildState
from crosstune.service.schemas.common import NAME_PATTERN, Page
from crosstune.service.schemas.jobs import Budget, JobDetail, JobEvent, JobIn
from crosstune.service.schemas.networks import NetworkOut, NetworkState
from crosstune.tuner.archive import unpack
from crosstune.tuner.contracts import NetworkRefused

ItemT = TypeVar("ItemT", bound=BaseModel)
Source = str | PathLike[str] | bytes
"""ONNX bytes, the path of an ONNX file, or the id or name of a network that the service has."""

DEFAULT_URL = "http://127.0.0.1:8642"
HOST = "host"
"""The target that stands for the machine that the service runs on."""
PAGE_SIZE = 200
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Client(Operations):
    """A synchronous client of one service; usable as a context manager, and by several threads at once.

    :param base_url: where the service answers; `crosstune serve` prints it.
    :param api_key: sent as a bearer token where a service asks for one.
    :param timeout_s: longest wait for one answer; streams have their own.
    """

    def __init__(self, base_url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = 60.0) -> None:
        super().__init__(Transport(base_url, api_key, timeout_s))
        self.base_url = base_url.rstrip("/")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def collect(self, operation: Callable[..., Page[ItemT]], limit: int | None = None, **filters: Any) -> list[ItemT]:
        """The items of all pages of a list, at most `limit`: `client.collect(client.list_jobs, state="running")`."""
        items: list[ItemT] = []
        cursor: str | None = None
        while limit is None or len(items) < limit:
            size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(items))
            page = operation(**filters, limit=size, cursor=cursor)
            items += page.items
            cursor = page.next
            if cursor is None:
                break
        return items

    def upload_network(
        self,
        source: str | PathLike[str] | bytes,
        name: str | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> NetworkOut:
        """Upload an ONNX file or its bytes; a file gives its own name where that is still free."""
        if isinstance(source, bytes):
            return self.create_network(source, name=name, shapes=shapes)
        path = Path(source)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ClientError(f"cannot read {path}: {error.strerror or error}") from error
        if name is not None:
            return self.create_network(content, name=name, shapes=shapes)
        try:
            return self.create_network(content, name=_name_of(path), shapes=shapes)
        except ApiError as error:
            if error.kind != "name-taken":
                raise
            return self.create_network(content, shapes=shapes)

    def wait_network(self, network: str, timeout_s: float | None = None) -> NetworkOut:
        """Wait for a network's import.

        :raises NetworkRefused: it cannot be imported; code and text say why.
        """
        importing = NetworkState.IMPORTING
        found = self._poll(lambda: self.get_network(network), lambda it: it.state is not importing, timeout_s)
        if found.state is NetworkState.REFUSED:
            failure = found.failure
            raise NetworkRefused(
                failure.code if failure else "refused", failure.detail if failure else "the network was refused"
            )
        return found

    def submit(
        self,
        network: Source,
        target: str = HOST,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        seed: int = 0,
        whole_budget: bool = False,
        webhook: str | None = None,
        key: str | None = None,
    ) -> JobDetail:
        """Submit a tuning job; a file or bytes are uploaded and imported first, `host` registers the service's machine.

        :raises NetworkRefused: the network cannot be imported.
        """
        body = self.prepare(
            network,
            target,
            trials=trials,
            seconds=seconds,
            shapes=shapes,
            labels=labels,
            priority=priority,
            seed=seed,
            whole_budget=whole_budget,
            webhook=webhook,
        )
        return self.create_job(body, key=key)

    def prepare(
        self,
        network: Source,
        target: str = HOST,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        seed: int = 0,
        whole_budget: bool = False,
        webhook: str | None = None,
    ) -> JobIn:
        """Everything that `submit` does but the job itself: what `create_job` and `plan_job` take."""
        # What can be wrong without the service is wrong before anything is uploaded.
        if isinstance(network, str) and network.endswith(".onnx") and not Path(network).is_file():
            raise ClientError(f"there is no file {network}")
        draft = JobIn(
            network="later",
            target="later",
            budget=Budget(trials=trials, seconds=seconds),
            labels=dict(labels or {}),
            priority=priority,
            seed=seed,
            whole_budget=whole_budget,
            webhook=webhook,
        )
        found = self.detect_target() if target == HOST else self.get_target(target)
        return draft.model_copy(update={"target": found.id, "network": self._ready_network(network, shapes)})

    def wait(
        self, job: str, on_event: Callable[[JobEvent], None] | None = None, timeout_s: float | None = None
    ) -> JobDetail:
        """Follow a job to its end; however it ended, it is returned.

        :raises WaitedTooLong: it has not ended after `timeout_s`.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for event in EventStream(self._transport, job_path(job), deadline_s=deadline_s):
            if on_event is not None:
                on_event(event)
        return self.get_job(job)

    def wait_build(self, build: str, timeout_s: float | None = None) -> BuildOut:
        """Wait until a build has succeeded or failed; either is returned."""
        return self._poll(lambda: self.get_build(build), lambda it: it.state is not BuildState.BUILDING, timeout_s)

    def download_artifact(self, build: str, folder: str | PathLike[str]) -> Path:
        """Download a build's artifact into `folder` (new or empty), ready for `crosstune.load`; whole or not at all."""
        final = Path(folder)
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise ClientError(f"{final} exists and is not empty; give a new folder")
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}-") as name:
            archive = Path(name, "download.tar")
            expected = self.get_artifact(build, archive)
            with archive.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            if expected and found != expected:
                raise ClientError(f"the artifact of {build} arrived damaged (sha256 {found}); download it again")
            unpack(archive, Path(name)).replace(final)
        return final

    def _ready_network(self, network: Source, shapes: Mapping[str, Sequence[int]] | None) -> str:
        if isinstance(network, bytes) or not isinstance(network, str) or Path(network).is_file():
            return self.wait_network(self.upload_network(network, shapes=shapes).id).id
        return self.wait_network(network).id

    def _poll(self, look: Callable[[], ItemT], over: Callable[[ItemT], bool], timeout_s: float | None) -> ItemT:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = FIRST_PAUSE_S
        while not over(found := look()):
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise WaitedTooLong(f"nothing has come to an end after {timeout_s:g} s; the service goes on with it")
            time.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 1.5 * pause_s)
        return found


def _name_of(path: Path) -> str | None:
    """The file's name as a network's name, or None where nothing usable is left of it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100]
    return name if re.fullmatch(NAME_PATTERN, name) else None
