"""`<data_dir>/service.json`: how other processes of this machine find the running service."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

FILE_NAME = "service.json"
CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class RunningService:
    """Where a service answers, and the process that serves it."""

    url: str
    pid: int


def announce(data_dir: Path, service: RunningService) -> None:
    """Write the file in one step, so that nobody reads half of it."""
    path = data_dir / FILE_NAME
    draft = path.with_suffix(f".{service.pid}.new")
    draft.write_text(json.dumps(asdict(service)) + "\n")
    draft.replace(path)


def withdraw(data_dir: Path, pid: int) -> None:
    """Remove the file when it still speaks of this process."""
    found = _read(data_dir)
    if found is not None and found.pid == pid:
        (data_dir / FILE_NAME).unlink(missing_ok=True)


def find(data_dir: Path) -> RunningService | None:
    """The service announced for this folder, when its process lives and its port takes connections.

    A service that was killed leaves its file behind, and its process id may belong to another program by now.
    """
    found = _read(data_dir)
    return found if found is not None and _alive(found.pid) and _listens(found.url) else None


def _read(data_dir: Path) -> RunningService | None:
    try:
        value = json.loads((data_dir / FILE_NAME).read_text())
        return RunningService(str(value["url"]), int(value["pid"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        # Not written by this module; a service that starts writes it anew.
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname or "", address.port or 80), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True
