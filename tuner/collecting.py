"""Collect measured programs of real networks on several targets of this machine, to train cost models on.

Each workload goes through phases, target by target. On the first target: half of the programs drawn at random, half
proposed by searches. On every other one: half of the first target's programs replayed, so that the same programs are
known everywhere, then its own searches. At last, when other workloads have been measured in between, a tenth is
measured a second time: how well that agrees with the first is the most that any model can reach.

Everything is in the folder. A collection that was killed goes on with the round that was lost.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from crosstune.cost_model.formats.collected import CollectionFolder
from crosstune.cost_model.formats.record import RANDOM, REPEAT, REPLAY, SEARCH
from crosstune.cost_model.hold_out import is_held_out
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    ChildFailed,
    ImportedNetwork,
    Invalidity,
    KnownSchedule,
    Quality,
    RoundRequest,
    ShouldStop,
    TargetSpec,
    Workload,
    median,
)
from crosstune.tuner.rounds import RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.tvm_adapter.compute import anchor_key

ROUND_TRIALS = 32
REPEATED_SHARE = 0.1
DEFAULT = "default"
PASSES = 3
"""Quick measurements of a program, apart in time: with one, the repeat ranked 82 % of the pairs as the first did."""


@dataclass(slots=True)
class CollectedWorkload:
    """A workload, and how often each network calls it."""

    workload: Workload
    networks: dict[str, int] = field(default_factory=dict)
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """After each round: what it was, and how many programs there are now."""

    workload: str
    target: TargetSpec
    phase: str
    measured: int
    valid: int
    total: int


def distinct_workloads(networks: dict[str, ImportedNetwork], seed: int) -> list[CollectedWorkload]:
    """Each workload once, in a seeded random order, so that a collection cut short has seen all kinds."""
    found: dict[str, CollectedWorkload] = {}
    for name, network in networks.items():
        for task in network.tasks:
            one = found.setdefault(task.workload.sha256, CollectedWorkload(task.workload))
            one.networks[name] = task.weight
    for one in found.values():
        one.held_out = is_held_out(one.workload.version_free_key, anchor_key(one.workload.module))
    ordered = [found[key] for key in sorted(found)]
    Random(seed).shuffle(ordered)
    return ordered


class Collector:
    """Measures into `folder`; nothing else may run on this machine meanwhile."""

    def __init__(
        self,
        folder: CollectionFolder,
        rounds: RoundRunner,
        builder: Builder,
        runner: Runner,
        programs: int = 128,
        seed: int = 0,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._folder, self._rounds, self._builder, self._runner = folder, rounds, builder, runner
        self._half, self._seed, self._tell = programs // 2, seed, tell

    def collect(
        self, workloads: Sequence[CollectedWorkload], targets: Sequence[TargetSpec], should_stop: ShouldStop
    ) -> None:
        """All phases of all workloads on all targets, as far as they are not there yet; returns early when stopped."""
        for target in targets:
            self._folder.add_target(target.identity, target.to_json())
        before: CollectedWorkload | None = None
        for one in workloads:
            self._folder.add_workload(_workload_line(one))
            for target in targets:
                self._measure(one.workload, target, targets[0], should_stop)
            if before is not None:
                self._repeat_all(before.workload, targets, should_stop)
            before = one
            if should_stop():
                return
        if before is not None:
            self._repeat_all(before.workload, targets, should_stop)

    def _measure(self, workload: Workload, target: TargetSpec, first: TargetSpec, should_stop: ShouldStop) -> None:
        if target == first:
            self._draw(workload, target, should_stop)
        else:
            self._replay(workload, target, first, should_stop)
        self._search(workload, target, should_stop)

    def _draw(self, workload: Workload, target: TargetSpec, should_stop: ShouldStop) -> None:
        """Programs drawn blindly, whatever is known."""
        lines = self._of(workload, target)
        missing = self._half - sum(line["origin"] in (RANDOM, DEFAULT) for line in lines)
        if missing > 0:
            self._round(workload, target, RANDOM, [*map(_known, lines)], missing, "random", should_stop)

    def _replay(self, workload: Workload, target: TargetSpec, first: TargetSpec, should_stop: ShouldStop) -> None:
        """Every second valid program of the first target."""
        lines = self._of(workload, target)
        tried = {line["schedule"] for line in lines}
        done = sum(line["origin"] in (REPLAY, RANDOM, DEFAULT) for line in lines)
        valid = [line for line in self._of(workload, first) if line["latencies_s"] and line["origin"] != REPEAT]
        wanted = valid[::2][: self._half]
        chosen = [line for line in wanted if line["schedule"] not in tried][: max(0, len(wanted) - done)]
        seeds = [KnownSchedule(line["trace"], line["schedule"], None, None, None) for line in chosen]
        if seeds:  # and the default schedule, which comes with the first round on every target
            known = [*seeds, *map(_known, lines)]
            self._round(workload, target, REPLAY, known, len(seeds) + (not lines), "random", should_stop)

    def _search(self, workload: Workload, target: TargetSpec, should_stop: ShouldStop) -> None:
        while not should_stop():
            lines = [line for line in self._of(workload, target) if line["origin"] != REPEAT]
            searched = sum(line["origin"] == SEARCH and line["latencies_s"] is not None for line in lines)
            if searched >= self._half or len(lines) >= 4 * self._half or not lines:
                return
            wanted = min(ROUND_TRIALS, self._half - searched)
            found = self._round(workload, target, SEARCH, [_known(x) for x in lines], wanted, "xgboost", should_stop)
            if not found or found < wanted // 4:  # the space holds no more
                return

    def _round(
        self,
        workload: Workload,
        target: TargetSpec,
        phase: str,
        known: Sequence[KnownSchedule],
        trials: int,
        ranker: str,
        should_stop: ShouldStop,
    ) -> int:
        """How many programs it measured, whatever came of them."""
        seed = int(workload.sha256[:6], 16) + self._seed + len(known)
        request = RoundRequest(target, workload, tuple(known), (), trials, seed, ranker=ranker)
        try:
            result = self._rounds.run(request, nullcontext, should_stop)
        except ChildFailed:  # the search died; tried once more, with other draws
            result = self._rounds.run(replace(request, seed=seed + 1), nullcontext, should_stop)
        if result.stopped:
            return 0  # part of a round would not be what its phase asks for
        lines = [_record_line(each, workload, target, _origin(each, phase)) for each in result.candidates]
        self._folder.add_records(lines)
        self._told(workload, target, phase, lines)
        return len(lines)

    def _repeat_all(self, workload: Workload, targets: Sequence[TargetSpec], should_stop: ShouldStop) -> None:
        for target in targets:
            lines = self._of(workload, target)
            if should_stop() or any(line["origin"] == REPEAT for line in lines):
                continue
            valid = [line for line in lines if line["latencies_s"] is not None and line["quality"] == Quality.QUICK]
            step = round(1 / REPEATED_SHARE)
            first = int(workload.sha256[:6], 16) % max(1, min(step, len(valid)))
            self._repeat(workload, target, valid[first::step], should_stop)

    def _repeat(
        self, workload: Workload, target: TargetSpec, lines: Sequence[dict[str, Any]], should_stop: ShouldStop
    ) -> None:
        request = RoundRequest(target, workload, (), (), len(lines), self._seed)
        jobs = [BuildJob(workload.module, line["trace"], target) for line in lines]
        built = self._builder.build_many(jobs, should_stop)
        again = []
        try:
            reference_s = self._runner.settle(target) if lines else 0.0
            for line, candidate in zip(lines, built, strict=True):
                if not isinstance(candidate, Built) or should_stop():
                    continue
                attempts = [self._runner.measure(candidate, request, Quality.QUICK, None) for _ in range(PASSES)]
                disturbed = self._runner.disturbed(reference_s)
                again.append(line | _timed(attempts, disturbed) | {"origin": REPEAT, "measured_at": time.time()})
        finally:
            for candidate in built:
                if isinstance(candidate, Built):
                    candidate.close()
        if not should_stop():
            self._folder.add_records(again)
            self._told(workload, target, REPEAT, again)

    def _of(self, workload: Workload, target: TargetSpec) -> list[dict[str, Any]]:
        return self._folder.records(workload.sha256, target.identity)

    def _told(self, workload: Workload, target: TargetSpec, phase: str, lines: Sequence[dict[str, Any]]) -> None:
        valid = sum(line["latencies_s"] is not None for line in lines)
        self._tell(Progress(workload.name, target, phase, len(lines), valid, self._folder.count()))


def _origin(candidate: CandidateResult, phase: str) -> str:
    """A replay round whose traces did not all fit is filled up with random programs."""
    if candidate.source == DEFAULT:
        return DEFAULT
    return RANDOM if phase == REPLAY and candidate.source != "transfer" else phase


def _workload_line(one: CollectedWorkload) -> dict[str, Any]:
    workload = one.workload
    return {
        "workload": workload.sha256,
        "name": workload.name,
        "version_free_key": workload.version_free_key,
        "flops": workload.flops,
        "args": workload.args,
        "output_count": workload.output_count,
        "tvm_version": workload.tvm_version,
        "pipeline_version": workload.pipeline_version,
        "networks": one.networks,
        "held_out": one.held_out,
        "module": workload.module,
    }


def _record_line(candidate: CandidateResult, workload: Workload, target: TargetSpec, origin: str) -> dict[str, Any]:
    features = candidate.features
    return {
        "workload": workload.sha256,
        "target": target.identity,
        "origin": origin,
        "schedule": candidate.schedule_sha256,
        "program": candidate.module_sha256,
        "trace": candidate.trace,
        "features": None if features is None else base64.b64encode(features).decode(),
        "measured_at": time.time(),
        **_timed(candidate.attempts, False),
    }


def _timed(attempts: Sequence[Attempt], disturbed: bool) -> dict[str, Any]:
    """The quick latencies, and the full ones where there are some; of a batch that was repeated only the second's.

    A program that a later pass found clearly slower than the best keeps its earlier latencies.
    """
    believed = [attempt for attempt in attempts if not attempt.disturbed] or list(attempts)
    failed = next((attempt.invalidity for attempt in attempts if attempt.invalidity is not None), None)
    hot = [one for one in believed if one.latencies_s and one.quality is not Quality.FULL]
    quick = next((one for one in hot if one.quality is Quality.QUICK), hot[0] if hot else None)
    passes = [value for one in hot if quick is not None and one.quality is quick.quality for value in one.latencies_s]
    cold = [value for one in believed if one.quality is Quality.FULL for value in one.latencies_s]
    return {
        "latencies_s": None if failed or not passes else passes,
        "quality": quick.quality.value if quick is not None else None,
        "cold_latencies_s": cold or None,
        "invalid": failed.value if failed else None,
        "reference_ratio": quick.conditions.get("reference_ratio") if quick is not None else None,
        "disturbed": disturbed,
    }


def _known(line: dict[str, Any]) -> KnownSchedule:
    return KnownSchedule(
        trace=line["trace"],
        schedule_sha256=line["schedule"],
        latency_s=median(line["latencies_s"]) if line["latencies_s"] else None,
        quality=Quality(line["quality"]) if line["quality"] else None,
        invalidity=Invalidity(line["invalid"]) if line["invalid"] else None,
        features=base64.b64decode(line["features"]) if line["features"] else None,
        module_sha256=line["program"],
        quick_s=median(line["latencies_s"]) if line["latencies_s"] and line["quality"] == Quality.QUICK else None,
    )
