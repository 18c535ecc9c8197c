"""MetaSchedule as a peer, repaired: its own search and xgboost with our builder, runner and threads.

Stock MetaSchedule spends most of its time starting builder processes, and measures on half of the processors; beating
that would say nothing. A process of its own: `python -m benchmarks.repaired_metaschedule REQUEST.json RESULT.json`.

It tunes one workload for so many trials, or the tasks of a network for so many seconds, with its own task scheduler.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tuning_database import BUILD_TIMEOUT_S, RUN_TIMEOUT_S
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Attempt, Quality, RoundRequest, TargetSpec, Workload, median
from crosstune.tuner.rounds import BUILD_PATIENCE
from crosstune.tuner.runner import Runner
from crosstune.tuner.tvm_adapter.preload import preload, set_threads

TIMEOUT_S = 1800.0
TRIALS_PER_ROUND = 64
"""MetaSchedule's own default."""
MOST_TRIALS = 10**6
TASK = "benchmark.task"
"""Attribute of a task's function: which one it is."""


def search(
    folder: Path,
    spec: TargetSpec,
    tasks: Mapping[Workload, int],
    seed: int,
    *,
    trials: int = MOST_TRIALS,
    seconds: float | None = None,
    round_trials: int = TRIALS_PER_ROUND,
) -> dict[str, Any]:
    """What it finds for workloads with their weights, from a process of its own: see `tune`; `folder` has its log.

    Raises CalledProcessError.
    """
    request, result = folder / "request.json", folder / "result.json"
    asked = {"target": spec.to_json(), "tasks": [[asdict(one), weight] for one, weight in tasks.items()], "seed": seed}
    asked |= {"trials": trials, "seconds": seconds, "round_trials": round_trials}
    asked |= {"builders": os.cpu_count() or 1, "build_timeout_s": BUILD_TIMEOUT_S, "run_timeout_s": RUN_TIMEOUT_S}
    request.write_text(json.dumps(asked))
    command = [sys.executable, "-m", "benchmarks.repaired_metaschedule", str(request), str(result)]
    with (folder / "repaired.log").open("a") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True, timeout=TIMEOUT_S)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def search_one(folder: Path, spec: TargetSpec, workload: Workload, trials: int, seed: int) -> dict[str, Any]:
    """The same for one workload, with its `trace` and `curve`."""
    found = search(folder, spec, {workload: 1}, seed, trials=trials)
    return {**found, **found["tasks"][0]}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    preload()
    spec = TargetSpec.from_json(request["target"])
    set_threads(spec.cores)
    tasks = [Task(workload_from_json(workload), weight) for workload, weight in request["tasks"]]
    with Template.start() as template, Runner(template, request["run_timeout_s"]) as runner:
        peer = Peer(
            Builder(template, request["builders"], request["build_timeout_s"]), runner, spec, tasks, request["seconds"]
        )
        result = tune(peer, request)
    Path(sys.argv[2]).write_text(json.dumps(result))


def workload_from_json(value: dict[str, Any]) -> Workload:
    return Workload(**{**value, "args": tuple((dtype, tuple(shape)) for dtype, shape in value["args"])})


@dataclass(slots=True)
class Task:
    workload: Workload
    weight: int
    trace: Any = None
    best_s: float = float("inf")
    """Of the best that TVM has told of."""
    default_s: float = float("inf")
    """Of the default schedule, which a network gets where there is nothing better."""
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    """(programs of this task that ran, seconds, best latency so far in seconds)"""


class Peer:
    """What the builder and the runner that TVM calls have in common."""

    def __init__(
        self, builder: Builder, runner: Runner, spec: TargetSpec, tasks: Sequence[Task], most_s: float | None
    ) -> None:
        self.most_s = most_s
        self.builder, self.runner, self.spec, self.tasks = builder, runner, spec, tasks
        self.built: dict[str, tuple[int, Built]] = {}
        self.started_s = time.perf_counter()
        self.seconds = {"build": 0.0, "run": 0.0}
        self.trials = self.valid = self.unseen = 0
        """`unseen`: programs that ran, and whose traces TVM has not told of yet."""

    def build(self, modules: Sequence[tuple[int, str]]) -> list[tuple[str | None, str | None]]:
        """`modules`: each with the number of its task. None is built when the time is used."""
        if self.time_used:
            return [(None, "the time is used")] * len(modules)
        since = time.perf_counter()
        jobs = [BuildJob(module, None, self.spec, unscheduled=True) for _, module in modules]
        answers: list[tuple[str | None, str | None]] = []
        workload = f"task {modules[0][0]}"  # TVM builds the candidates of one task at a time
        outcomes = self.builder.build_many(jobs, lambda: False, BUILD_PATIENCE, workload)
        for (task, _), outcome in zip(modules, outcomes, strict=True):
            if isinstance(outcome, Built):
                key = f"{tempfile.mkdtemp()}/in-memory"  # TVM deletes the folder of what it has measured
                self.built[key] = task, outcome
                answers.append((key, None))
            else:
                answers.append((None, outcome.detail if outcome else "stopped"))
        self.trials += len(modules)
        self.seconds["build"] += time.perf_counter() - since
        return answers

    def run(self, key: str) -> Attempt:
        since = time.perf_counter()
        task, built = self.built.pop(key)
        request = RoundRequest(self.spec, self.tasks[task].workload, (), (), 0, 0)
        with built:
            attempt = self.runner.measure(built, request, Quality.QUICK, None)
        if attempt.latencies_s:
            self.valid += 1
            self.unseen += 1
            self._ran(self.tasks[task], median(attempt.latencies_s))
        self.seconds["run"] += time.perf_counter() - since
        return attempt

    @property
    def time_used(self) -> bool:
        return self.most_s is not None and time.perf_counter() - self.started_s > self.most_s

    def _ran(self, task: Task, latency_s: float) -> None:
        ran, _, best_s = task.curve[-1] if task.curve else (0, 0.0, float("inf"))
        task.curve.append((ran + 1, time.perf_counter() - self.started_s, min(best_s, latency_s)))

    def tell(self, task: int, trace: Any, latency_s: float) -> None:
        """TVM hands traces out late: a task's when it is that task's turn again."""
        self.unseen -= 1
        if latency_s < self.tasks[task].best_s:
            self.tasks[task].trace, self.tasks[task].best_s = trace, latency_s

    def time_defaults(self) -> None:
        """Before the clock starts."""
        from crosstune.tuner.tvm_adapter.default_schedule import default_trace
        from crosstune.tuner.tvm_adapter.target import tvm_target

        target = tvm_target(self.spec)
        for task in self.tasks:
            job = BuildJob(task.workload.module, default_trace(task.workload.module, target), self.spec)
            with built_or_raise(self.builder.build(job)) as built:
                request = RoundRequest(self.spec, task.workload, (), (), 0, 0)
                task.default_s = median(self.runner.measure(built, request, Quality.QUICK, None).latencies_s)


def built_or_raise(outcome: Built | Attempt) -> Built:
    if not isinstance(outcome, Built):
        raise SystemExit(f"a default schedule cannot be built: {outcome.detail}")
    return outcome


class TimeUsed(Exception):
    """Ends a search that has no other end."""


def tune(peer: Peer, request: Mapping[str, Any]) -> dict[str, Any]:
    """`tasks`: of each its best trace (None where nothing ran) and its curve, and what all took."""
    import tvm
    import tvm.s_tir.meta_schedule as ms
    from tvm.ir.utils import derived_object

    from crosstune.tuner.tvm_adapter.schedule import load_module, trace_to_json

    @derived_object
    class OurBuilder(ms.builder.PyBuilder):  # type: ignore[misc]
        def build(self, inputs: list[Any]) -> list[Any]:
            answers = peer.build([(int(one.mod["main"].attrs[TASK]), tvm.ir.save_json(one.mod)) for one in inputs])
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

    @derived_object
    class Watch(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc]
        def apply(self, _: Any, task: int, candidates: list[Any], __: list[Any], results: list[Any]) -> None:
            for candidate, result in zip(candidates, results, strict=True):
                if result.run_secs:
                    latency_s = median([float(each) for each in result.run_secs])
                    peer.tell(task, trace_to_json(candidate.sch.trace), latency_s)
            if peer.time_used and not peer.unseen:
                raise TimeUsed

    from crosstune.tuner.tvm_adapter.target import tvm_target

    target = tvm_target(peer.spec)
    contexts = [
        ms.TuneContext(
            load_module(one.workload.module)["main"].with_attr(TASK, number),
            target=target,
            space_generator="post-order-apply",
            search_strategy="evolutionary",
            task_name=f"task {number}",
            rand_state=request["seed"] + number,
            num_threads=peer.spec.cores,
        ).clone()
        for number, one in enumerate(peer.tasks)
    ]
    callbacks = [Watch(), *ms.measure_callback.MeasureCallback.create("default")]
    peer.time_defaults()
    peer.started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            ms.tune.tune_tasks(
                tasks=contexts,
                task_weights=[float(one.weight) for one in peer.tasks],
                work_dir=folder,
                max_trials_global=request["trials"],
                num_trials_per_iter=request["round_trials"],
                builder=OurBuilder(),
                runner=OurRunner(),
                measure_callbacks=callbacks,
            )
        except RuntimeError:  # TVM hands TimeUsed back as an error of its own
            if not peer.time_used:
                raise
    gone_s = min(time.perf_counter() - peer.started_s, peer.most_s or math.inf)
    return {
        "seconds": gone_s,
        "trials": peer.trials,
        "valid": peer.valid,
        "seconds_by_part": {**peer.seconds, "search": gone_s - sum(peer.seconds.values())},
        "tasks": [{"trace": usable(one, target), "default_s": one.default_s, "curve": one.curve} for one in peer.tasks],
    }


def usable(task: Task, target: Any) -> Any:
    """The best trace, unless it does what we let no stored trace do (such as calling a rule of TVM's by name)."""
    from crosstune.tuner.tvm_adapter.schedule import ReplayFailed, scheduled_module

    if task.trace is None:
        return None
    try:
        scheduled_module(task.workload.module, task.trace, target)
    except ReplayFailed:
        return None
    return task.trace


if __name__ == "__main__":
    main()
