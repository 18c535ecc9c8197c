"""MetaSchedule as a peer, repaired: its own search and xgboost with our builder, runner and threads.

Stock MetaSchedule spends most of its time starting builder processes, and measures on half of the processors; beating
that would say nothing. A process of its own: `python -m benchmarks.repaired_metaschedule REQUEST.json RESULT.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.tuning_database import BUILD_TIMEOUT_S, RUN_TIMEOUT_S
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Attempt, Quality, RoundRequest, TargetSpec, Workload, median
from crosstune.tuner.runner import Runner
from crosstune.tuner.tvm_adapter.preload import preload, set_threads

FAILED_S = 1e10
TIMEOUT_S = 1800.0
TRIALS_PER_ROUND = 64
"""MetaSchedule's own default."""


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    preload()
    spec = TargetSpec.from_json(request["target"])
    set_threads(spec.cores)
    workload = Workload(**{**request["workload"], "args": tuple((d, tuple(s)) for d, s in request["workload"]["args"])})
    with Template.start() as template, Runner(template, request["run_timeout_s"]) as runner:
        peer = Peer(Builder(template, request["builders"], request["build_timeout_s"]), runner, spec, workload)
        result = tune(peer, request["trials"], request["seed"])
    Path(sys.argv[2]).write_text(json.dumps(result))


def search(folder: Path, spec: TargetSpec, workload: Workload, trials: int, seed: int) -> dict[str, Any]:
    """What it finds, from a process of its own: see `tune`. Raises CalledProcessError; `folder` has its log."""
    request, result = folder / "request.json", folder / "result.json"
    asked = {"target": spec.to_json(), "workload": asdict(workload), "trials": trials, "seed": seed}
    asked |= {"builders": os.cpu_count() or 1, "build_timeout_s": BUILD_TIMEOUT_S, "run_timeout_s": RUN_TIMEOUT_S}
    request.write_text(json.dumps(asked))
    command = [sys.executable, "-m", "benchmarks.repaired_metaschedule", str(request), str(result)]
    with (folder / "repaired.log").open("a") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True, timeout=TIMEOUT_S)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


class Peer:
    """What the builder and the runner that TVM calls have in common."""

    def __init__(self, builder: Builder, runner: Runner, spec: TargetSpec, workload: Workload) -> None:
        self.builder, self.runner, self.spec, self.workload = builder, runner, spec, workload
        self.request = RoundRequest(spec, workload, (), (), 0, 0)
        self.built: dict[str, Built] = {}
        self.started_s = time.perf_counter()
        self.seconds = {"build": 0.0, "run": 0.0}
        self.curve: list[tuple[int, float, float]] = []
        self.trials = self.ran = self.valid = 0
        self.best_s = FAILED_S

    def build(self, modules: list[str]) -> list[tuple[str | None, str | None]]:
        since = time.perf_counter()
        jobs = [BuildJob(module, None, self.spec, unscheduled=True) for module in modules]
        answers: list[tuple[str | None, str | None]] = []
        for outcome in self.builder.build_many(jobs, lambda: False):
            if isinstance(outcome, Built):
                key = f"{tempfile.mkdtemp()}/in-memory"  # TVM deletes the folder of what it has measured
                self.built[key] = outcome
                answers.append((key, None))
            else:
                answers.append((None, outcome.detail if outcome else "stopped"))
        self.trials += len(modules)
        self.seconds["build"] += time.perf_counter() - since
        return answers

    def run(self, key: str) -> Attempt:
        since = time.perf_counter()
        with self.built[key] as built:
            attempt = self.runner.measure(built, self.request, Quality.QUICK, None)
        self.ran += 1
        if attempt.latencies_s:
            self.valid += 1
            self.best_s = min(self.best_s, median(attempt.latencies_s))
            self.curve.append((self.ran, time.perf_counter() - self.started_s, self.best_s))
        self.seconds["run"] += time.perf_counter() - since
        return attempt


def tune(peer: Peer, trials: int, seed: int) -> dict[str, Any]:
    import tvm
    import tvm.s_tir.meta_schedule as ms
    from tvm.ir.utils import derived_object

    from crosstune.tuner.tvm_adapter.schedule import load_module, trace_to_json
    from crosstune.tuner.tvm_adapter.target import tvm_target

    @derived_object
    class OurBuilder(ms.builder.PyBuilder):  # type: ignore[misc]
        def build(self, inputs: list[Any]) -> list[Any]:
            answers = peer.build([tvm.ir.save_json(one.mod) for one in inputs])
            return [ms.builder.BuilderResult(path, error) for path, error in answers]

    @derived_object
    class Done(ms.runner.PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, attempt: Attempt) -> None:
            super().__init__()
            self.attempt = attempt

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            if self.attempt.latencies_s:
                return ms.runner.RunnerResult(list(self.attempt.latencies_s), None)
            return ms.runner.RunnerResult(None, self.attempt.detail or "failed")

    @derived_object
    class OurRunner(ms.runner.PyRunner):  # type: ignore[misc]
        def run(self, inputs: list[Any]) -> list[Any]:
            return [Done(peer.run(str(one.artifact_path))) for one in inputs]

    target = tvm_target(peer.spec)
    module = load_module(peer.workload.module)
    peer.started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        database = ms.tune_tir(
            module,
            target,
            folder,
            trials,
            num_trials_per_iter=TRIALS_PER_ROUND,
            builder=OurBuilder(),
            runner=OurRunner(),
            num_tuning_cores=peer.spec.cores,
            seed=seed,
        )
        gone_s = time.perf_counter() - peer.started_s
        records = database.get_top_k(database.commit_workload(module), 1)
        best = trace_to_json(records[0].trace)
    return {
        "seconds": gone_s,
        "trials": peer.trials,
        "valid": peer.valid,
        "best_quick_s": peer.best_s,
        "trace": best,
        "seconds_by_part": {**peer.seconds, "search": gone_s - sum(peer.seconds.values())},
        "curve": peer.curve,  # (programs run, seconds, best latency so far in seconds)
    }


if __name__ == "__main__":
    main()
