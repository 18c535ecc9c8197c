"""Schedules that nobody measured on the target: have one proposed, and see whether it can be used, before a build."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crosstune.tuner.builder import Builder, BuildJob
from crosstune.tuner.child import ChildError
from crosstune.tuner.contracts import Attempt, ChildFailed, CrosstuneError, RoundRequest, TraceJson
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Proposal, Searcher

DEFAULT = "default"
"""Where such a proposal comes from, as candidates name it."""


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
        """The schedule that the ranker holds for the fastest of all that a round lowers, unless that is the default."""
        try:
            found = self.searcher.propose(replace(request, trials=1, unmeasured=True))
        except (ChildFailed, ChildError) as error:
            raise NothingUsable(f"the search failed: {error}") from error
        if not found.candidates:
            raise NothingUsable(found.note or "the search found nothing that the cost model could rank")
        (best,) = found.candidates
        if best.source == DEFAULT:
            raise NothingUsable(found.note or "the cost model holds the default schedule for the fastest")
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
