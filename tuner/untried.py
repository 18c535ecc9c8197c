"""Schedules that nobody measured on the target: have one proposed, and see whether it can be used, before a build."""

from __future__ import annotations

from dataclasses import dataclass

from crosstune.tuner.builder import Builder, BuildJob
from crosstune.tuner.child import ChildError
from crosstune.tuner.contracts import Attempt, ChildFailed, CrosstuneError, RoundRequest, TraceJson
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Proposal, Searcher

TRIALS = 2
"""The default schedule, which a first round begins with, and what the ranker holds for the fastest."""


class NothingUsable(CrosstuneError):
    """There is no such schedule; the text says why."""


@dataclass(frozen=True, slots=True)
class Untried:
    """Takes what is not known to be right, and raises NothingUsable where it is not: in a child of its own, which is
    killed after its time, a schedule is compiled, and its output compared with that of the unscheduled program."""

    searcher: Searcher
    builder: Builder
    runner: Runner

    def proposed(self, request: RoundRequest) -> Proposal:
        """The schedule that the ranker holds for the fastest; `request` is a round of TRIALS trials."""
        try:
            found = self.searcher.propose(request)
        except (ChildFailed, ChildError) as error:
            raise NothingUsable(f"the search failed: {error}") from error
        ranked = [each for each in found.candidates if each.predicted_score is not None]
        if not ranked:
            raise NothingUsable(found.note or "the search found nothing that the cost model could rank")
        best = max(ranked, key=lambda each: each.predicted_score or 0.0)
        self.check(request, best.trace)
        return best

    def check(self, request: RoundRequest, trace: TraceJson) -> None:
        built = self.builder.build(BuildJob(request.workload.module, trace, request.target))
        if isinstance(built, Attempt):
            raise NothingUsable(_reason(built))
        with built:
            wrong = self.runner.check(built, request)
        if wrong is not None:
            raise NothingUsable(_reason(wrong))


def _reason(attempt: Attempt) -> str:
    return f"{attempt.invalidity}: {attempt.detail}"
