"""Runs of rounds on a workload, and the fastest programs of several runs timed once more, in alternation.

What a search sees in passing cannot be compared between runs: the machine's speed wanders, and of many programs
measured briefly the luckiest leads. So the finalists of all runs of a workload are built anew and timed in turn.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tuning_database import BUILD_TIMEOUT_S, RUN_TIMEOUT_S, TuningDatabase
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import Template
from crosstune.tuner.collecting_here import attributes, parse_short
from crosstune.tuner.contracts import CandidateResult, Offered, Quality, RoundRequest, TargetSpec, Workload, median
from crosstune.tuner.rounds import RoundRunner, quick_s
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import detect_machine, native

ROUND_TRIALS = 16
FINALISTS = 8
"""Programs of each run that are timed again, the fastest by what the search saw."""
REPEATS, LOOKS = 5, 3
"""Builds of each finalist, and how often each build is timed, the others in between."""


AVX2_BITS = 256


@dataclass(frozen=True, slots=True)
class Program:
    """A measured candidate of one run; `elapsed_s` is when its round had ended."""

    trial: int
    schedule: str
    trace: Any
    quick_s: float
    source: str
    elapsed_s: float


@dataclass(slots=True)
class Run:
    """Everything that was tried, in order; `programs` are those that ran."""

    programs: list[Program] = field(default_factory=list)
    candidates: list[CandidateResult] = field(default_factory=list)
    offered: dict[str, Offered] = field(default_factory=dict)
    timings_s: Counter[str] = field(default_factory=Counter)
    """Where the time went: search, build, run, wait_for_device."""

    @property
    def finalists(self) -> list[Program]:
        return sorted(self.programs, key=lambda one: one.quick_s)[:FINALISTS]


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run's database holds from the start: candidates of a workload on a target."""

    workload: Workload
    candidates: Sequence[CandidateResult]
    spec: TargetSpec
    attributes: Mapping[str, Any]


class Tuning:
    """Runs on one target of this machine, the native one unless told, each on a database of its own in `folder`."""

    def __init__(self, template: Template, folder: Path, target: str | None = None) -> None:
        """`target`: MCPU:CORES."""
        machine = detect_machine(template)
        self.spec = native(machine) if target is None else parse_short(target, machine, template)
        self._folder = folder
        self._known = attributes(template, machine, self.spec)
        self._builder = Builder(template, os.cpu_count() or 1, BUILD_TIMEOUT_S)
        self._runner = Runner(template, RUN_TIMEOUT_S)
        self._rounds = RoundRunner(Searcher(template), self._builder, self._runner)

    def close(self) -> None:
        self._rounds.close()

    def run(
        self,
        workload: Workload,
        ranker: str,
        seed: int,
        trials: int,
        before: Sequence[Earlier] = (),
        round_trials: int = ROUND_TRIALS,
    ) -> Run:
        """Rounds until `trials` candidates were tried."""
        self._rounds.close()  # a search child keeps what it lowered: another run must not profit from it
        for old in self._folder.glob("run.db*"):
            old.unlink()
        database = TuningDatabase(self._folder / "run.db", self.spec, self._known)
        for one in before:
            database.store(database.add(one.workload), one.candidates, database.register(one.spec, one.attributes))
        key, run, exhausted, began_s = database.add(workload), Run(), False, time.monotonic()
        while len(run.candidates) < trials and not exhausted:
            wanted = min(round_trials, trials - len(run.candidates))
            request = database.request(key, wanted, 1000 * seed + len(run.candidates), ranker)
            result = self._rounds.run(request, nullcontext, lambda: False)
            database.store(key, result.candidates)
            _add(run, result.candidates, time.monotonic() - began_s)
            run.offered |= result.offered
            run.timings_s.update(result.timings_s)
            exhausted = result.exhausted
        database.close()
        return run

    def earlier(self, workload: Workload, run: Run) -> Earlier:
        """What a run on this target found, for another run to start from."""
        return Earlier(workload, run.candidates, self.spec, self._known)

    def replayed(self, workload: Workload, traces: Mapping[str, Any]) -> float:
        """Seconds that it takes to build schedules of another target, by name, and to time each once."""
        began_s = time.monotonic()
        self._round_of_timing(workload, self._jobs(workload, traces), 1)
        return time.monotonic() - began_s

    def timed_again(self, workload: Workload, runs: Iterable[Run]) -> dict[str, float]:
        """Latency in seconds by schedule, of the finalists."""
        return self.alternately(workload, finalists(runs))

    def alternately(
        self,
        workload: Workload,
        traces: Mapping[str, Any],
        beside: Mapping[str, Callable[[], Sequence[float]]] = {},
        modules: Mapping[str, str] = {},
    ) -> dict[str, float]:
        """Latency in seconds by name: each schedule is built once a round of timing, all in turn, with modules of the
        workload that have their schedule already, and `beside` them what times programs of its own.

        The median over all rounds; of `beside` the best round: where its process puts its threads and its memory is
        not ours to choose, and has made the same program half as fast.
        """
        jobs = self._jobs(workload, traces)
        jobs |= {name: BuildJob(module, None, self.spec, unscheduled=True) for name, module in modules.items()}
        timed: dict[str, list[float]] = {name: [] for name in jobs}
        rounds_s: dict[str, list[float]] = {name: [] for name in beside}
        for _ in range(REPEATS):
            for name, latencies_s in self._round_of_timing(workload, jobs, LOOKS).items():
                timed[name] += latencies_s
            for name, measure in beside.items():
                rounds_s[name].append(median(measure()))
        found = {name: median(latencies_s) for name, latencies_s in timed.items() if latencies_s}
        return found | {name: min(latencies_s) for name, latencies_s in rounds_s.items()}

    def _jobs(self, workload: Workload, traces: Mapping[str, Any]) -> dict[str, BuildJob]:
        return {name: BuildJob(workload.module, trace, self.spec) for name, trace in traces.items()}

    def _round_of_timing(self, workload: Workload, jobs: Mapping[str, BuildJob], looks: int) -> dict[str, list[float]]:
        """Latencies by name; those that cannot be built have none."""
        request = RoundRequest(self.spec, workload, (), (), 0, 0)
        self._runner.settle(self.spec)
        outcomes = self._builder.build_many(list(jobs.values()), lambda: False)
        built = {name: one for name, one in zip(jobs, outcomes, strict=True) if isinstance(one, Built)}
        timed: dict[str, list[float]] = {name: [] for name in built}
        for name, program in (pair for _ in range(looks) for pair in built.items()):
            timed[name] += self._runner.measure(program, request, Quality.QUICK, None).latencies_s
        for program in built.values():
            program.close()
        return timed


def narrower(template: Template) -> str:
    """Another target of this machine, MCPU:CORES: the x86-64 level below its own vectors."""
    machine = detect_machine(template)
    bits = machine.attributes["vector_bits"].value
    return f"{'x86-64-v3' if float(bits) > AVX2_BITS else 'x86-64-v2'}:{machine.cores}"


def finalists(runs: Iterable[Run]) -> dict[str, Any]:
    """Traces by schedule."""
    return {one.schedule: one.trace for run in runs for one in run.finalists}


def _add(run: Run, candidates: Sequence[CandidateResult], elapsed_s: float) -> None:
    for one in candidates:
        run.candidates.append(one)
        latency_s = quick_s(one.attempts)
        if latency_s is not None and one.attempts[-1].invalidity is None:
            place = len(run.candidates)
            run.programs.append(Program(place, one.schedule_sha256, one.trace, latency_s, one.source, elapsed_s))
