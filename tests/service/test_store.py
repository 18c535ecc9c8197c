"""The artifact store: whole files or none, in the project's own tree."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crosstune.service.store import Store, Stored


async def _chunks(*parts: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if then is not None:
        raise then


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_received_bytes_are_kept_under_their_hash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    incoming = asyncio.run(store.receive(_chunks(b"ab", b"", b"c")))
    stored = store.keep("default", "network", incoming)
    assert stored == Stored(hashlib.sha256(b"abc").hexdigest(), 3, stored.uri, created=True)
    assert store.path(stored.uri).read_bytes() == b"abc"
    store.drop(incoming)
    assert [path.name for path in _files(tmp_path)] == [stored.sha256]


def test_received_bytes_that_are_dropped_leave_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.drop(asyncio.run(store.receive(_chunks(b"ab"))))
    assert _files(tmp_path) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ConnectionError):
        asyncio.run(store.receive(_chunks(b"ab", then=ConnectionError())))
    assert _files(tmp_path) == []


def test_the_same_bytes_are_stored_once_per_project(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    store = Store(tmp_path / "data")
    first, again, other = (store.put_file(project, "build", source) for project in ("one", "one", "two"))
    assert (first.created, again.created, other.created) == (True, False, True)
    assert first.uri == again.uri != other.uri
    store.delete(first.uri)
    store.delete(first.uri)
    assert not store.path(first.uri).exists()
    assert _files(tmp_path / "data") == [store.path(other.uri)]


def test_what_a_dead_process_was_receiving_is_forgotten_in_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, fresh = (asyncio.run(store.receive(_chunks(b"ab"))) for _ in range(2))
    os.utime(old.path, (1, 1))
    store.forget_abandoned()
    assert _files(tmp_path) == [fresh.path]


@pytest.mark.parametrize("uri", ["../secret", "/etc/passwd", "artifacts/../crosstune.db", "crosstune.db"])
def test_a_uri_that_leaves_the_artifact_folder_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="artifact"):
        Store(tmp_path).path(uri)
