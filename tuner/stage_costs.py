"""How many programs a round lowers for each one that it measures: what the costs of earlier rounds allow.

Choosing among more programs finds better ones, and takes time in which others could be measured. So as many are lowered
as fit into a fixed share of the round: many where measuring is dear, few where it is cheap.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from crosstune.tuner.contracts import SHORTLIST

SEARCH_SHARE = 0.15
"""Of a round's seconds, device wait left out."""
FEWEST, MOST = 2.0, 16.0
KEPT = 1024
"""Workloads whose costs are remembered."""


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What one round cost, in seconds."""

    programs: int
    """That were lowered."""
    searching_s: float
    """Drafting, lowering and ranking them."""
    trials: int
    measuring_s: float
    """Building and timing the trials."""

    @property
    def shortlist(self) -> float:
        """Programs to lower for each trial."""
        if not self.programs or not self.trials:
            return SHORTLIST
        program_s, trial_s = self.searching_s / self.programs, self.measuring_s / self.trials
        allowed_s = SEARCH_SHARE / (1.0 - SEARCH_SHARE) * trial_s
        return MOST if allowed_s >= MOST * program_s else max(FEWEST, allowed_s / program_s)


class Shortlists:
    """By workload and target, from the last round of each on this worker."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], float] = OrderedDict()

    def of(self, key: tuple[str, str]) -> float:
        return self._last.get(key, SHORTLIST)

    def note(self, key: tuple[str, str], costs: StageCosts) -> None:
        self._last[key] = costs.shortlist
        self._last.move_to_end(key)
        if len(self._last) > KEPT:
            self._last.popitem(last=False)
