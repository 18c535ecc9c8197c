"""Notes about the processes that were started, so that those of a killed parent can be found and killed.

A process is known by its id and its start time: an id alone may by now belong to somebody else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

NOTES = "processes"
SCRATCH = "scratch"


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which process `pid` started; None when there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def note(folder: Path, pid: int, scratch: Path | None) -> Path:
    """Write that this process started `pid`; the caller deletes the note when `pid` has ended."""
    path = folder / NOTES / f"{os.getpid()}-{pid}.json"
    facts = {"pid": pid, "started": start_time(pid), "owner": os.getpid(), "owner_started": start_time(os.getpid())}
    path.write_text(json.dumps({**facts, "scratch": str(scratch) if scratch else None}))
    return path


def kill_orphans(folder: Path) -> list[int]:
    """Kill processes noted under `folder` whose owner is gone, and remove their scratch folders.

    Returns the ids that were killed. Safe beside other live parents that use the same folder.
    """
    killed = []
    for path in sorted((folder / NOTES).glob("*.json")):
        try:
            facts = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # its owner is deleting or writing it at this moment
        if start_time(facts["owner"]) == facts["owner_started"]:
            continue
        # A dead leader's number is not given out again while its group has members, so its group is killed too.
        if start_time(facts["pid"]) in (facts["started"], None) and _kill_group(facts["pid"]):
            killed.append(facts["pid"])
        if facts["scratch"]:
            shutil.rmtree(facts["scratch"], ignore_errors=True)
        path.unlink(missing_ok=True)
    return killed


def _kill_group(leader: int) -> bool:
    try:
        os.killpg(leader, signal.SIGKILL)  # templates and children lead their own sessions
    except ProcessLookupError:
        return False
    return True
