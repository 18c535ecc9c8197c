"""A round: propose, build, measure a few dozen candidates of one workload, and hand back every attempt.

A round holds no state that matters: everything it needs is in the request, so it may be killed anywhere and run again.
What is timed is timed alone on the device (`measuring` is held), first quickly with hot caches, what is near the best a
second time, when the others have been timed in between, then, for what could win, with cold weights and enough repeats
for a median, after its output was compared with the unscheduled program.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    Measuring,
    Quality,
    RoundRequest,
    RoundResult,
    ShouldStop,
    median,
)
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Proposal, Proposals, Searcher
from crosstune.tuner.stage_costs import Shortlists, StageCosts

LOOKS = 2
LOOK_RATIO = 1.5
"""A quick latency within this factor of the best quick one is measured LOOKS times, apart in time: on a shared machine
one program's latency wanders by 5 to 8 % within seconds, and the records' order is what the ranker learns from."""
CONTENDER_RATIO = 1.15
"""A quick latency within this factor of the best quick one earns a full measurement: cold weights reorder that much."""
NEAR_BEST_RATIO = 1.1
"""A full latency within this factor of the best is measured twice: of many measured once, the luckiest would follow."""
BUILD_PATIENCE = 3.0
"""What takes so many times longer to compile than most of its workload is given up. Of 192 candidates of three
convolutions those took half of the time, and one was among the fastest tenth of its workload."""
CONTENDERS, FIRST_CONTENDERS = 4, 2
"""Full measurements per round at most; they cost ten cold runs each. Fewer in a workload's first round, which later
ones beat: all tasks of a network have theirs before anything else happens."""


@dataclass(slots=True)
class Trial:
    """One candidate on its way through a round."""

    proposal: Proposal
    built: Built | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def quick_s(self) -> float | None:
        return quick_s(self.attempts)

    @property
    def full_s(self) -> float | None:
        """The median over the full measurements, as the record will be judged."""
        undisturbed = [a for a in self.attempts if a.quality is Quality.FULL and a.latencies_s and not a.disturbed]
        return median([median(a.latencies_s) for a in undisturbed]) if undisturbed else None

    @property
    def censored(self) -> bool:
        """In the batch that is being measured: clearly slower than the best, which a second look would not change."""
        return bool(self.attempts) and self.attempts[-1].quality is Quality.CENSORED and not self.attempts[-1].disturbed

    @property
    def failed(self) -> bool:
        return any(attempt.invalidity is not None for attempt in self.attempts)

    def close(self) -> None:
        if self.built is not None:
            self.built.close()
            self.built = None

    def result(self) -> CandidateResult:
        proposal = self.proposal
        return CandidateResult(
            trace=proposal.trace,
            schedule_sha256=proposal.schedule_sha256,
            module_sha256=proposal.module_sha256,
            features=proposal.features,
            predicted_score=proposal.predicted_score,
            attempts=tuple(self.attempts),
            source=proposal.source,
        )


class RoundRunner:
    """Runs rounds on this machine with children of one template; one round at a time."""

    def __init__(self, searcher: Searcher, builder: Builder, runner: Runner, passes: int = 1) -> None:
        """`passes`: quick measurements of every candidate, however slow, for labels that are to be learnt from."""
        self._searcher, self._builder, self._runner, self._passes = searcher, builder, runner, passes
        self._shortlists = Shortlists()

    def run(self, request: RoundRequest, measuring: Measuring, should_stop: ShouldStop) -> RoundResult:
        """Run one round; raises ChildFailed only when the search itself died (the round may then be tried again)."""
        clock = Stopwatch()
        key = (request.workload.sha256, request.target.identity)
        proposals = self._searcher.propose(replace(request, shortlist=self._shortlists.of(key)))
        clock.lap("search")
        trials = [Trial(proposal) for proposal in proposals.candidates]
        reference_s = None
        try:
            stopped = should_stop() or self._build(request, trials, should_stop)
            clock.lap("build")
            if trials and not stopped:
                with measuring():
                    clock.lap("wait_for_device")
                    stopped, reference_s = self._measure(request, trials, should_stop)
                    clock.lap("run")
        finally:
            for trial in trials:
                trial.close()
        finished = [trial.result() for trial in trials if trial.attempts]
        self._shortlists.note(key, stage_costs(proposals, len(finished), clock.laps_s))
        return RoundResult(
            candidates=tuple(finished),
            exhausted=proposals.exhausted,
            stopped=stopped,
            reference_s=reference_s,
            timings_s=clock.laps_s,
            offered=proposals.offered,
            note=proposals.note,
        )

    def close(self) -> None:
        """End the children that are kept between rounds."""
        self._searcher.close()
        self._runner.close()

    def _build(self, request: RoundRequest, trials: Sequence[Trial], should_stop: ShouldStop) -> bool:
        """Compile all trials beside each other; True when the round is to stop."""
        jobs = [BuildJob(request.workload.module, trial.proposal.trace, request.target) for trial in trials]
        patience = BUILD_PATIENCE if self._passes == 1 else math.inf
        workload = f"{request.workload.sha256} {request.target.identity}"
        outcomes = self._builder.build_many(jobs, should_stop, patience, workload)
        for trial, outcome in zip(trials, outcomes, strict=True):
            if isinstance(outcome, Built):
                trial.built = outcome
            elif outcome is not None:
                trial.attempts.append(outcome)
        return should_stop()

    def _measure(
        self, request: RoundRequest, trials: Sequence[Trial], should_stop: ShouldStop
    ) -> tuple[bool, float | None]:
        """Time the built trials under the device's lease; a disturbed batch is marked and measured once more.

        The second is believed whatever the reference kernel says: on a machine that is never quiet there would be no
        best schedule at all. `reference_ratio` in its conditions tells.
        """
        stopped, reference_s = self._batch(request, trials, should_stop)
        if not stopped and reference_s is not None and self._runner.disturbed(reference_s):
            self._mark(trials)
            stopped, reference_s = self._batch(request, trials, should_stop)
        return stopped, reference_s

    @staticmethod
    def _mark(trials: Sequence[Trial]) -> None:
        """Whatever was timed so far was timed beside something else."""
        for trial in trials:
            trial.attempts = [replace(a, disturbed=True) if a.latencies_s else a for a in trial.attempts]

    def _batch(
        self, request: RoundRequest, trials: Sequence[Trial], should_stop: ShouldStop
    ) -> tuple[bool, float | None]:
        before_s = self._runner.settle(request.target)
        best_quick_s = _best(known.quick_s for known in request.known)
        for look in range(max(LOOKS, self._passes)):
            most_s = LOOK_RATIO * best_quick_s if best_quick_s is not None and look >= self._passes else float("inf")
            for trial in trials:
                if should_stop():
                    return True, before_s
                if trial.built is None or trial.censored or (trial.quick_s or 0.0) > most_s:
                    continue
                self._note(trial, self._runner.measure(trial.built, request, Quality.QUICK, best_quick_s))
                if trial.quick_s is not None:
                    best_quick_s = min(trial.quick_s, best_quick_s or trial.quick_s)
        stopped = self._measure_contenders(request, trials, best_quick_s, should_stop)
        after_s = self._runner.reference(request.target)
        return stopped, max(before_s, after_s)

    def _measure_contenders(
        self, request: RoundRequest, trials: Sequence[Trial], best_quick_s: float | None, should_stop: ShouldStop
    ) -> bool:
        best_full_s = _best(known.latency_s for known in request.known if known.quality is Quality.FULL)
        for trial in contenders(trials, best_quick_s, best_full_s is None):
            if should_stop():
                return True
            self._measure_in_full(request, trial, best_full_s)
            if not trial.failed:
                best_full_s = _best((best_full_s, trial.full_s))
        return False

    def _measure_in_full(self, request: RoundRequest, trial: Trial, best_full_s: float | None) -> None:
        """Once; what comes near the best, and so may become it, is checked and measured again."""
        assert trial.built is not None
        attempt = self._runner.measure(trial.built, request, Quality.FULL, best_full_s)
        latency_s = median(attempt.latencies_s) if attempt.latencies_s else None
        if latency_s is None or (best_full_s is not None and latency_s >= NEAR_BEST_RATIO * best_full_s):
            self._note(trial, attempt)
        elif (wrong := self._runner.check(trial.built, request)) is not None:
            self._note(trial, wrong)
        else:
            self._note(trial, replace(attempt, conditions={**attempt.conditions, "checked": True}))
            self._note(trial, self._runner.measure(trial.built, request, Quality.FULL, best_full_s))

    @staticmethod
    def _note(trial: Trial, attempt: Attempt) -> None:
        trial.attempts.append(attempt)
        if attempt.invalidity is not None:
            trial.close()


def stage_costs(proposals: Proposals, trials: int, laps_s: Mapping[str, float]) -> StageCosts:
    """What is the same for any number of programs, such as making the design spaces, is left out."""
    searching_s = sum(proposals.timings_s.get(phase, 0.0) for phase in ("draft", "replay", "features", "rank"))
    return StageCosts(proposals.lowered, searching_s, trials, laps_s.get("build", 0.0) + laps_s.get("run", 0.0))


def quick_s(attempts: Sequence[Attempt]) -> float | None:
    """The mean over the quick measurements, as the record will be ranked; disturbed ones only where there are no
    others."""
    quick = [each for each in attempts if each.quality is Quality.QUICK and each.latencies_s]
    believed = [each for each in quick if not each.disturbed] or quick
    return fmean(median(each.latencies_s) for each in believed) if believed else None


def contenders(trials: Sequence[Trial], best_quick_s: float | None, first: bool) -> list[Trial]:
    """The trials that could win, best first: those near the best quick latency, and always one where none is known."""
    timed = sorted(
        (trial for trial in trials if trial.built is not None and trial.quick_s is not None and not trial.failed),
        key=lambda trial: trial.quick_s or 0.0,
    )
    if best_quick_s is None:
        return []
    most = FIRST_CONTENDERS if first else CONTENDERS
    near = [trial for trial in timed if (trial.quick_s or 0.0) <= CONTENDER_RATIO * best_quick_s][:most]
    # The default schedule is what tuning is compared with, so it is measured in full however slow it is.
    default = [trial for trial in timed if trial.proposal.source == "default" and trial not in near]
    return (near or (timed[:1] if first else [])) + default


class Stopwatch:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps_s: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_s[name] = self.laps_s.get(name, 0.0) + now - self._since
        self._since = now


def _best(latencies_s: Iterable[float | None]) -> float | None:
    return min((value for value in latencies_s if value is not None), default=None)
