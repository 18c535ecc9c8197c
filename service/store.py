"""Artifact bytes in a folder: content-addressed files, one tree per project and kind.

`artifacts/<project>/<kind>/<first two digits>/<sha256>` under the folder; the database stores that relative path as
the artifact's URI. A file appears whole or not at all: it is written under a temporary name, synced, then renamed. All
processes of a service share the folder, on one machine or through a network file system that locks files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

CHUNK_BYTES = 1 << 20
ABANDONED_S = 24 * 3600.0
"""No upload takes longer than this."""


@dataclass(frozen=True, slots=True)
class Stored:
    sha256: str
    size_bytes: int
    uri: str
    """Path relative to the store's folder."""
    created: bool
    """False when the same bytes were there before."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Bytes that have arrived under a temporary name; to be kept or dropped by whoever received them."""

    path: Path
    sha256: str
    size_bytes: int


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads = threading.Lock()
        self._incoming = folder / "artifacts" / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For whoever decides from the database that a file is no longer used, or begins to use one: one at a time,
        among all processes that share the folder."""
        with self._threads, (self.folder / "artifacts.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def path(self, uri: str) -> Path:
        """Where an artifact lies; raises ValueError for a URI that this store did not make."""
        path = (self.folder / uri).resolve()
        if not path.is_relative_to((self.folder / "artifacts").resolve()):
            raise ValueError(f"artifact URI {uri!r} leaves the artifact folder")
        return path

    async def receive(self, chunks: AsyncIterator[bytes]) -> Incoming:
        """Write a body as it arrives; when the stream breaks, nothing is left."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size_bytes = hashlib.sha256(), 0
                async for chunk in chunks:
                    digest.update(chunk)
                    size_bytes += file.write(chunk)
                file.flush()
                await run_in_threadpool(os.fsync, file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Incoming(path, digest.hexdigest(), size_bytes)

    def keep(self, project: str, kind: str, incoming: Incoming) -> Stored:
        """Give received bytes their final place."""
        uri = f"artifacts/{project}/{kind}/{incoming.sha256[:2]}/{incoming.sha256}"
        final = self.path(uri)
        created = not final.exists()
        if created:
            final.parent.mkdir(parents=True, exist_ok=True)
            incoming.path.replace(final)
            _sync_folder(final.parent)
        else:
            incoming.path.unlink(missing_ok=True)
        return Stored(incoming.sha256, incoming.size_bytes, uri, created)

    def drop(self, incoming: Incoming) -> None:
        """Forget received bytes that are not kept; harmless when they were."""
        incoming.path.unlink(missing_ok=True)

    def forget_abandoned(self, older_than_s: float = ABANDONED_S) -> None:
        """Remove what a process that died was still receiving."""
        before = time.time() - older_than_s
        for path in self._incoming.iterdir():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def put_file(self, project: str, kind: str, source: Path) -> Stored:
        """Store a copy of a file."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file, source.open("rb") as content:
                digest, size_bytes = hashlib.sha256(), 0
                while chunk := content.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size_bytes += file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return self.keep(project, kind, Incoming(path, digest.hexdigest(), size_bytes))
        finally:
            path.unlink(missing_ok=True)

    def delete(self, uri: str) -> None:
        """Remove an artifact's bytes; harmless when they are gone."""
        self.path(uri).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
