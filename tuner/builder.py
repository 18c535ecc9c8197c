"""Compile candidates beside each other, one child process each; a child keeps its machine code until it is measured."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from crosstune.tuner.child import Child, Template
from crosstune.tuner.contracts import (
    Attempt,
    ChildFailed,
    CrosstuneError,
    Invalidity,
    Quality,
    ShouldStop,
    TargetSpec,
    TraceJson,
)

BUILD = "operations.build_candidate:run"
MOST_LIVE = 128
"""Children that hold machine code at the same time: some 30 MB of their own each."""
STOP_POLL_S = 0.2
TYPICAL_BUILDS, LEAST_PATIENCE_S = 4, 1.0
"""Builds of a workload from which is known how long one takes, and what every one gets."""
REMEMBERED_BUILDS, REMEMBERED_WORKLOADS = 32, 256
"""The last ones."""


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to compile: a workload's module under a trace, the default schedule (no trace), or as it is written."""

    module: str
    trace: TraceJson | None
    target: TargetSpec
    unscheduled: bool = False

    def payload(self) -> dict[str, Any]:
        return {
            "module": self.module,
            "trace": self.trace,
            "target": self.target.to_json(),
            "unscheduled": self.unscheduled,
        }


@dataclass(frozen=True, slots=True)
class Built:
    """A candidate's machine code inside its live child; close it after measuring."""

    child: Child
    target: TargetSpec
    module_sha256: str
    build_s: float
    timings_s: dict[str, float]

    def close(self) -> None:
        self.child.close()

    def __enter__(self) -> Built:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Builder:
    """Compiles with `workers` children at a time, each killed after `timeout_s`: LLVM never ends on some programs."""

    def __init__(self, template: Template, workers: int, timeout_s: float) -> None:
        self._template, self._workers, self._timeout_s = template, workers, timeout_s
        self._times: OrderedDict[str, BuildTimes] = OrderedDict()

    def build(self, job: BuildJob) -> Built | Attempt:
        """Compile one candidate; an Attempt says why it cannot be had (TIMEOUT, COMPILE, REPLAY, OUT_OF_MEMORY ...).

        Raises ChildError for a fault that is not the candidate's.
        """
        built = self._build(job, _Batch(math.inf, BuildTimes()))
        assert built is not None
        return built

    def build_many(
        self, jobs: Sequence[BuildJob], should_stop: ShouldStop, patience: float = math.inf, workload: str = ""
    ) -> list[Built | Attempt | None]:
        """Compile all, answers in the order of `jobs`; None for those that `should_stop` kept from ending.

        `patience`: what takes so many times longer than most of the last builds of `workload` (any word; else of this
        batch) is given up (TIMEOUT). The first ones have all the time. The caller closes what was built.
        """
        if len(jobs) > MOST_LIVE:
            raise CrosstuneError(f"{len(jobs)} candidates in one batch; at most {MOST_LIVE} can be held at a time")
        batch = _Batch(patience, self._times_of(workload) if workload else BuildTimes())
        with ThreadPoolExecutor(self._workers, thread_name_prefix="build") as pool:
            futures = [pool.submit(self._build, job, batch) for job in jobs]
            try:
                self._wait(futures, batch, should_stop)
            except BaseException:
                batch.stop()
                _close(futures)
                raise
        return [future.result() for future in futures]

    def _times_of(self, workload: str) -> BuildTimes:
        times = self._times.setdefault(workload, BuildTimes())
        self._times.move_to_end(workload)
        if len(self._times) > REMEMBERED_WORKLOADS:
            self._times.popitem(last=False)
        return times

    @staticmethod
    def _wait(futures: Sequence[Future[Built | Attempt | None]], batch: _Batch, should_stop: ShouldStop) -> None:
        open_futures = set(futures)
        while open_futures:
            done, open_futures = wait(open_futures, timeout=STOP_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            if open_futures and should_stop():
                batch.stop()

    def _build(self, job: BuildJob, batch: _Batch) -> Built | Attempt | None:
        if batch.stopped:
            return None
        try:
            child = self._template.spawn("build")
        except ChildFailed as error:
            return failed(error.invalidity, error.detail)
        try:
            with batch.working(child):
                patience_s = batch.times.patience_s(batch.patience)
                answer = child.call(BUILD, job.payload(), min(self._timeout_s, patience_s))
        except ChildFailed as error:
            child.close()
            return None if batch.stopped else self._failed(error)
        except BaseException:
            child.close()
            raise
        if "invalidity" in answer:
            child.close()
            return failed(Invalidity(answer["invalidity"]), answer["detail"])
        batch.times.note(answer["build_s"])
        return Built(child, job.target, answer["module_sha256"], answer["build_s"], answer["timings_s"])

    @staticmethod
    def _failed(error: ChildFailed) -> Attempt:
        """A compiler that crashes does so again: COMPILE, not RUNTIME."""
        crashed = error.invalidity is Invalidity.RUNTIME
        return failed(Invalidity.COMPILE if crashed else error.invalidity, error.detail)


class BuildTimes:
    """How long the last builds of one workload took; of all of them, how long another may take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._builds_s: deque[float] = deque(maxlen=REMEMBERED_BUILDS)

    def note(self, build_s: float) -> None:
        with self._lock:
            self._builds_s.append(build_s)

    def patience_s(self, patience: float) -> float:
        """`patience`: times what most have taken; without end while few are known."""
        with self._lock:
            few = len(self._builds_s) < TYPICAL_BUILDS
            return math.inf if few else max(LEAST_PATIENCE_S, patience * median(self._builds_s))


class _Batch:
    """The children at work for one call of `build_many`, so that they can be stopped."""

    def __init__(self, patience: float, times: BuildTimes) -> None:
        self.patience, self.times = patience, times
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self.stopped = False

    @contextmanager
    def working(self, child: Child) -> Iterator[None]:
        with self._lock:
            self._children.add(child)
            stopped = self.stopped
        if stopped:
            child.close()
        try:
            yield
        finally:
            with self._lock:
                self._children.discard(child)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            children = list(self._children)
        for child in children:
            child.close()


def failed(invalidity: Invalidity, detail: str) -> Attempt:
    """An attempt that ended without a latency."""
    return Attempt(latencies_s=(), quality=Quality.QUICK, invalidity=invalidity, detail=detail)


def _close(futures: Sequence[Future[Built | Attempt | None]]) -> None:
    """Close whatever was or still gets built."""
    for future in futures:
        if not future.cancel() and future.exception() is None and isinstance(built := future.result(), Built):
            built.close()
