"""How fast Ansor gets where: its curve and log for each operator, once per processor model.

`python -m benchmarks.ansor.curves FOLDER`, after `benchmarks/ansor/setup.sh FOLDER`, on a quiet machine. What is found
is kept in the repository, so a broken run goes on, in another clone too; figures of different processors never mix.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.operators import OPERATORS, Operator
from crosstune.tuner.hardware import detect

KEPT = Path(__file__).parent.parent / "kept" / "ansor"
SIDE = Path(__file__).parent / "side.py"
TIMEOUT_S = 3600.0
NEAR = 1.02
"""As good as another latency, of the peer's own best and of ours beside it."""
WIDE, NARROW = "skylake-avx512", "core-avx2"
"""LLVM 10 knows no newer processors, with AVX-512 and without."""


@dataclass(frozen=True, slots=True)
class Curve:
    """`points`: [seconds, trials, best latency in seconds or None] after each batch; `log`: lines of Ansor's log."""

    mcpu: str
    threads: int
    points: list[list[float | None]]
    log: list[str]

    @property
    def seconds(self) -> float:
        """Until it first came within 2 % of its final best, by what it saw itself."""
        return self._first()[0] or 0.0

    @property
    def trials(self) -> int:
        return int(self._first()[1] or 0)

    def _first(self) -> list[float | None]:
        reached = [point for point in self.points if point[2] is not None]
        if not reached:
            raise SystemExit("Ansor measured nothing; see its log")
        goal_s = NEAR * min(point[2] or 0.0 for point in reached)
        return next(point for point in reached if (point[2] or 0.0) <= goal_s)


class Ansor:
    """The folder that setup.sh made."""

    def __init__(self, folder: Path, threads: int) -> None:
        if not (folder / "env.sh").exists():
            raise SystemExit(f"{folder} holds no Ansor: benchmarks/ansor/setup.sh {folder}")
        self._folder, self.threads = folder.resolve(), threads
        self.mcpu = WIDE if detect()["vector_bits"].value >= 512 else NARROW

    def tune(self, operator: Operator) -> Curve:
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch) / "log.json"
            lines = self._run("tune", operator, {"log": str(log), "trials": operator.peer_trials})
            points = [[one["seconds"], one["trials"], one["best_s"]] for one in lines]
            return Curve(self.mcpu, self.threads, points, log.read_text().splitlines())

    def timed(self, operator: Operator, curve: Curve, looks: int) -> list[float]:
        """Latencies in seconds of the best program of its log, built anew."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as log:
            log.write("\n".join(curve.log) + "\n")
            log.flush()
            found: list[float] = self._run("time", operator, {"log": log.name, "looks": looks})[-1]
        return found

    def plain(self, operator: Operator, looks: int) -> list[float]:
        """Latencies in seconds of the schedule by hand."""
        found: list[float] = self._run("fixed", operator, {"looks": looks})[-1]
        return found

    def _run(self, action: str, operator: Operator, more: dict[str, Any]) -> list[Any]:
        """The JSON lines that the other Python printed."""
        request = {"kind": operator.kind, "args": operator.args, "mcpu": self.mcpu, "threads": self.threads, **more}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(request, file)
            file.flush()
            command = f'. "{self._folder}/env.sh" && exec python "{SIDE}" {action} "{file.name}"'
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            raise SystemExit(f"Ansor could not {action} {operator.name}: {done.stderr[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]


def kept_path(operator: Operator) -> Path:
    """Of this processor model."""
    return KEPT / report.cpu_model().lower().replace(" ", "-") / f"{operator.name}.json.xz"


def kept(operator: Operator) -> Curve | None:
    path = kept_path(operator)
    if not path.exists():
        return None
    with lzma.open(path, "rt") as file:
        return Curve(**json.load(file))


def keep(operator: Operator, curve: Curve) -> None:
    path = kept_path(operator)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path.with_suffix(".part"), "wt", preset=9) as file:
        json.dump(asdict(curve), file)
    path.with_suffix(".part").replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what setup.sh made")
    parser.add_argument("--minutes", type=float, help="start no further operator after so long; a later run goes on")
    parser.add_argument("--only", nargs="+", metavar="OPERATOR", help=", ".join(one.name for one in OPERATORS))
    options = parser.parse_args()
    until_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    ansor = Ansor(options.folder, os.cpu_count() or 1)
    # The short ones first: a run that is cut short then leaves the more.
    for operator in sorted(OPERATORS, key=lambda one: one.peer_trials):
        if kept(operator) is None and time.monotonic() < until_s and operator.name in (options.only or operator.name):
            curve = ansor.tune(operator)
            keep(operator, curve)
            print(f"{operator.name}: {curve.trials} trials, {curve.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
