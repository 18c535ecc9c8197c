"""From traces to programs with features, many at a time: the dear part of a search, on all cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tvm.ir import IRModule, load_json
from tvm.s_tir import Schedule
from tvm.target import Target

from crosstune.cost_model.features import Matrix
from crosstune.tuner.contracts import TraceJson
from crosstune.tuner.tvm_adapter.schedule import (
    ReplayFailed,
    module_sha256,
    postprocess,
    replay,
    schedule_sha256,
    trace_json,
)
from crosstune.tuner.tvm_adapter.statements import statement_features


@dataclass(frozen=True, slots=True)
class Lowered:
    """A candidate whose program exists: it replays and passes the target's post-processing."""

    trace: TraceJson
    schedule_sha256: str
    module_sha256: str
    features: Matrix | None


@dataclass(frozen=True, slots=True)
class _Replayed:
    trace: TraceJson
    schedule_sha256: str
    module_sha256: str
    schedule: Schedule


class Lowerer:
    """Lowers traces of one workload for one target."""

    def __init__(self, module_json: str, target: Target, threads: int) -> None:
        self.module_json, self.target, self.threads = module_json, target, threads
        self.timings_s: dict[str, float] = {"replay": 0.0, "features": 0.0}
        self.count = 0
        """Programs lowered so far."""
        # A module of its own for each thread: TVM's passes may change what they hold alone.
        self._modules: list[IRModule] = [load_json(module_json) for _ in range(threads)]

    def lower(self, traces: Sequence[TraceJson], seed: int, unwanted: set[str]) -> list[Lowered]:
        """The programs of those traces that have one, in order, each program once.

        Decisions that a trace leaves open are drawn from `seed`, and ones that do not fit are repaired: the result's
        own trace is what counts. `unwanted` holds schedule and module hashes to leave out.
        """
        started = time.perf_counter()
        replayed, seen = [], set(unwanted)
        for found in self._replay_all(traces, seed):
            if found is not None and found.schedule_sha256 not in seen and found.module_sha256 not in seen:
                seen |= {found.schedule_sha256, found.module_sha256}
                replayed.append(found)
        halfway = time.perf_counter()
        schedules = [found.schedule for found in replayed]
        features = statement_features(schedules, self.module_json, self.target, self.threads)
        self.count += len(replayed)
        self.timings_s["replay"] += halfway - started
        self.timings_s["features"] += time.perf_counter() - halfway
        return [
            Lowered(found.trace, found.schedule_sha256, found.module_sha256, matrix)
            for found, matrix in zip(replayed, features, strict=True)
        ]

    def _replay_all(self, traces: Sequence[TraceJson], seed: int) -> list[_Replayed | None]:
        results: list[_Replayed | None] = [None] * len(traces)

        def work(worker: int) -> None:
            for position in range(worker, len(traces), self.threads):
                results[position] = self._replay(self._modules[worker], traces[position], seed + position)

        if len(traces) == 1 or self.threads == 1:
            for position, trace in enumerate(traces):
                results[position] = self._replay(self._modules[0], trace, seed + position)
        else:
            with ThreadPoolExecutor(self.threads) as pool:  # TVM releases the interpreter lock while it works
                list(pool.map(work, range(self.threads)))
        return results

    def _replay(self, module: IRModule, trace: TraceJson, seed: int) -> _Replayed | None:
        try:
            schedule = replay(module, trace, strict=False, seed=1 + seed % (2**31 - 2))
            found = trace_json(schedule)
            postprocess(schedule, self.module_json, self.target)
        except ReplayFailed:
            return None
        return _Replayed(found, schedule_sha256(found), module_sha256(schedule.mod), schedule)
