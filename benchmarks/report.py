"""One form for every benchmark's result: claims with goals, the machine, the data behind them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent / ".cache"
PACKAGES = ("apache-tvm", "apache-tvm-ffi", "onnxruntime", "onnx", "numpy", "xgboost-cpu")


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure that the project promises; `goal` stays as it was set, reached or missed."""

    id: str
    value: float | None
    unit: str
    goal: float
    better: Literal["higher", "lower"]
    spread: tuple[float, float] | None = None
    n: int = 1

    @property
    def reached(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


def kept_folder(name: str, quick: bool, fresh: bool) -> Path:
    """Where a benchmark keeps what it has finished, so that a broken run goes on; emptied when `fresh`, or `quick`."""
    folder = CACHE / (f"{name}.quick" if quick else name)
    if fresh or quick:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on: processor model, cores and threads in use, versions."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    from crosstune.tuner.hardware import detect

    return str(detect()["model"].value)


def write(name: str, command: str, claims: list[Claim], data: dict[str, Any], threads: int, quick: bool) -> Path:
    """Write `results/<name>.json` (or `<name>.quick.json` in the cache, which is never committed)."""
    report = {
        "benchmark": name,
        "command": command,
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(threads),
        "claims": [asdict(claim) for claim in claims],
        "data": data,
    }
    folder = CACHE if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{'.quick' if quick else ''}.json"
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    scratch.replace(path)
    return path


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
