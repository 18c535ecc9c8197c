"""Operations that misbehave on purpose; children find them only through a template that was told to allow them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path
from typing import Any

STATE: dict[str, Any] = {}


def echo(payload: Any) -> Any:
    return payload


def remember(payload: Any) -> Any:
    STATE["value"] = payload
    return None


def recall(_: Any) -> Any:
    return STATE.get("value")


def hang(_: Any) -> None:
    subprocess.Popen(["sleep", "1000"])
    time.sleep(1000)


def build_or_hang(payload: dict[str, Any]) -> dict[str, Any]:
    """A build of half a second that an unscheduled module never comes to the end of."""
    time.sleep(1000 if payload["unscheduled"] else 0.5)
    return {"build_s": 0.5, "timings_s": {}, "module_sha256": ""}


def sleeping_grandchild(_: Any) -> int:
    return subprocess.Popen(["sleep", "1000"]).pid


def crash(_: Any) -> None:
    ctypes.string_at(0)


def leave(status: int) -> None:
    os._exit(status)


def kill_itself(_: Any) -> None:
    os.kill(os.getpid(), 9)


def fill_memory(_: Any) -> int:
    blocks = []
    while True:
        blocks.append(bytearray(64 * 2**20))


def complain(text: str) -> None:
    raise ValueError(text)


def surroundings(_: Any) -> dict[str, Any]:
    Path("left-behind.txt").write_text("x")
    return {
        "pid": os.getpid(),
        "folder": str(Path.cwd()),
        "files": sorted(path.name for path in Path.cwd().iterdir()),
        "environment": dict(os.environ),
        "session": os.getsid(0),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }
