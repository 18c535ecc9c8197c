"""A round's search: draft many schedules, lower the promising ones, propose the best.

Drafts are drawn and bred in plain Python from the design spaces that TVM's schedule rules generate. A small model over
decisions picks which drafts are worth lowering: it learns from this workload's own records, then from what the ranker
says of the programs lowered so far. The ranker picks which programs are worth measuring. While it has no opinion,
drafts go straight through. What is lowered but not proposed is kept for the next round, where ranking it again costs
next to nothing.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import TypeGuard, TypeVar

from tvm.s_tir.meta_schedule import TuneContext
from tvm.target import Target

from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.features import FEATURE_LAYOUT, layout_of, pack, unpack
from crosstune.cost_model.ranker import Context, Example, Ranker
from crosstune.cost_model.rankers import make_ranker
from crosstune.tuner.contracts import Offered, TraceJson, sha256_json
from crosstune.tuner.drafting import Drafter, has_verdict, is_seed, unwanted_hashes
from crosstune.tuner.drafts import Draft, Space
from crosstune.tuner.evidence import elsewhere_of, fields_of
from crosstune.tuner.search import Proposal, Proposals, SearchRequest
from crosstune.tuner.tvm_adapter.default_schedule import default_trace
from crosstune.tuner.tvm_adapter.lowered import Lowered, Lowerer
from crosstune.tuner.tvm_adapter.schedule import load_module, trace_json
from crosstune.tuner.tvm_adapter.target import tvm_target

GENERATIONS = 2
"""Of new programs in a round: what the ranker says of one tells which drafts to lower in the next. Those kept from
before come on top."""
EXPLORING_SHARE = 0.1
"""Proposals drawn at random although the ranker has an opinion."""
FIRST_EXPLORING_SHARE = 0.5
"""The same while there are fewer than FEW_RECORDS: what records teach depends on how different they are."""
FEW_RECORDS = 32
ALIKE = 2
"""Schedules that differ in no more decisions than that are alike: measuring both teaches little."""
TRANSFERS, NEIGHBOURS = 5, 4
"""Schedules of this workload on other targets, and where there are none of workloads like it, that its first round
tries."""
STALE_BATCHES = 3
"""Batches without a single new program before the space counts as exhausted."""
UNMEASURED_ROOM = 16
"""What is used unmeasured is chosen out of as many programs as a round of so many trials lowers."""
MAX_KEPT = 1024
MAX_THREADS = 8

DEFAULT, TRANSFER, NEIGHBOUR = "default", "transfer", "neighbour"
STAND_IN = "xgboost"

Result = TypeVar("Result")
Scored = tuple[Lowered, float | None]
"""A program and what the ranker says of it, if it can."""


def propose(request: SearchRequest) -> Proposals:
    """At most `request.trials` new candidates, the default schedule first as long as it is unknown."""
    started = time.perf_counter()
    session = _session(request)
    found = _Round(session, request).run()
    found.timings_s["search"] = time.perf_counter() - started
    return found


@dataclass
class Session:
    """What outlives a round in this process: the design spaces and everything lowered so far."""

    lowerer: Lowerer
    design: Callable[[], tuple[list[Space], str]]
    default: Lowered | None
    context_s: float
    """What making it took; counted in its first round."""
    origins: dict[str, str]
    """By schedule: the source of what no search drafted, also when it is proposed rounds later."""
    kept: dict[str, Lowered] = field(default_factory=dict)
    tried: set[Draft] = field(default_factory=set)
    """Complete drafts of the spaces that were lowered or refused."""

    @cached_property
    def designed(self) -> tuple[list[Space], str]:
        """The design spaces, made when they are first asked for, and why there are none, if so."""
        return self.design()


_sessions: dict[str, Session] = {}


def _session(request: SearchRequest) -> Session:
    key = sha256_json([request.module, request.target.to_json(), request.default_only])
    if key not in _sessions:
        _sessions.clear()
        _sessions[key] = _new_session(request)
    return _sessions[key]


def _new_session(request: SearchRequest) -> Session:
    started = time.perf_counter()
    target = tvm_target(request.target)
    lowerer = Lowerer(request.module, target, min(MAX_THREADS, len(os.sched_getaffinity(0))))
    default = lowerer.lower([default_trace(request.module, target)], 1, set())
    origins = {each.schedule_sha256: DEFAULT for each in default}

    def design() -> tuple[list[Space], str]:
        return ([], "") if request.default_only else design_spaces(request.module, target)

    return Session(lowerer, design, default[0] if default else None, time.perf_counter() - started, origins)


def design_spaces(module_json: str, target: Target) -> tuple[list[Space], str]:
    """The workload's design spaces, and why there are none, if so."""
    try:
        context = TuneContext(
            load_module(module_json), target=target, space_generator="post-order-apply", num_threads=1, rand_state=1
        )
        schedules = context.generate_design_space()
    except (RuntimeError, ValueError, TypeError) as error:
        return [], f"TVM generates no design space for this workload: {str(error).strip().splitlines()[-1][:200]}"
    return [Space(trace_json(schedule)) for schedule in schedules], ""


class _Round:
    def __init__(self, session: Session, request: SearchRequest) -> None:
        self.session, self.request = session, request
        self.clock = {"context": session.context_s, "fit": 0.0, "draft": 0.0, "rank": 0.0}
        self.lowering_before = dict(session.lowerer.timings_s)
        self.lowered_before = session.lowerer.count
        session.context_s = 0.0
        self.random = Random(request.seed)
        self.unwanted = unwanted_hashes(request.known)
        self.verdicts = [known for known in request.known if has_verdict(known)]
        self.target = fields_of(request.target, request.attributes)
        self.elsewhere = [elsewhere_of(one) for one in request.elsewhere]
        self.offered: dict[str, Offered] = {}
        self.notes = [request.default_only] if request.default_only else []
        self.dry = False
        """The spaces gave less than was asked for."""

    def run(self) -> Proposals:
        chosen = self._promising() if self.request.unmeasured else self._candidates()
        for phase, spent_s in self.session.lowerer.timings_s.items():
            self.clock[phase] = spent_s - self.lowering_before[phase]
        lowered = self.session.lowerer.count - self.lowered_before
        return Proposals(tuple(chosen), self.dry, "; ".join(self.notes), self.clock, lowered, self.offered)

    @cached_property
    def ranker(self) -> Ranker:
        return self._timed("fit", self._fitted_ranker)

    @cached_property
    def drafter(self) -> Drafter:
        """Of no spaces where TVM makes none."""
        spaces, reason = self._timed("context", lambda: self.session.designed)
        if reason:
            self.notes.append(reason)
        known, elsewhere = self.request.known, self.request.elsewhere if len(self.verdicts) < FEW_RECORDS else ()
        return self._timed("fit", lambda: Drafter(spaces, known, self.session.tried, self.random, elsewhere))

    def _candidates(self) -> list[Proposal]:
        """The default schedule while it is unknown; besides, what was found elsewhere, or else what a search finds."""
        default = self._default()
        room = self.request.trials - len(default)
        return default + (self._opening(room) or self._found(room)) if room > 0 else default

    def _default(self) -> list[Proposal]:
        """The default schedule, if it is unknown here."""
        default = self.session.default
        if default is None or {default.schedule_sha256, default.module_sha256} & self.unwanted:
            return []
        return [self._proposal(default, None)]

    def _opening(self, room: int) -> list[Proposal]:
        """A first round tries what others found, and nothing else: that takes a second, is at times as good as all that
        is found later, and the next round learns from it."""
        return self._transfers(room) or self._neighbours(min(NEIGHBOURS, room))

    def _transfers(self, room: int) -> list[Proposal]:
        """The most promising schedules of this workload on other targets, all that fit where the ranker has no opinion;
        the others are kept."""
        seeds = [known.trace for known in self.request.known if is_seed(known)]
        pool = self.session.lowerer.lower(seeds, self.request.seed, self.unwanted)
        self._offer(TRANSFER, len(seeds), len(pool))
        return self._foremost(pool, TRANSFER, min(TRANSFERS, room) if pool and self.ranker.informed else room)

    def _neighbours(self, room: int) -> list[Proposal]:
        """The most promising schedules of workloads like this one; the others are kept."""
        if not self.request.near:
            return []
        drafts = self._timed("draft", lambda: self.drafter.neighbours(self.request.near, self.unwanted))
        pool = self._lowered(drafts, self.unwanted)
        self._offer(NEIGHBOUR, len(self.request.near), len(pool))
        return self._foremost(pool, NEIGHBOUR, room)

    def _foremost(self, pool: list[Lowered], source: str, room: int) -> list[Proposal]:
        """The first `room` by the ranker, in their own order where it has no opinion; all are kept."""
        if not pool:
            return []
        self.session.kept.update({each.schedule_sha256: each for each in pool})
        for each in pool:
            self.session.origins.setdefault(each.schedule_sha256, source)
        unscored: list[Scored] = [(each, None) for each in pool]
        scored = self._scored(pool) if self.ranker.informed else unscored
        return [self._proposal(each, score) for each, score in scored[:room]]

    def _promising(self) -> list[Proposal]:
        """What the ranker holds for the fastest of all: the default schedule, neighbours, drafts. Nothing blindly."""
        if not self.drafter.spaces or not self.ranker.informed:
            return []
        default = self.session.default
        if default is not None:
            self.session.kept[default.schedule_sha256] = default
        self._neighbours(0)  # lowered and kept
        best = [(each, score) for each, score in self._ranked(UNMEASURED_ROOM) if score is not None]
        return [self._proposal(each, score) for each, score in best[: self.request.trials]]

    def _found(self, room: int) -> list[Proposal]:
        if not self.drafter.spaces:
            self.dry = True
            return []
        if not self.ranker.informed:
            pool = self._grown(room)
            self.dry = self.dry and len(pool) <= room
            return [self._proposal(each, None) for each in pool[:room]]
        scored = self._ranked(room)
        self.dry = self.dry and len(scored) <= room
        return [self._proposal(each, score) for each, score in self._picked(scored, room)]

    def _ranked(self, room: int) -> list[Scored]:
        """Programs lowered for `room` candidates, and those kept from before, the best first."""
        for generation in range(GENERATIONS):
            scored = self._scored(self._grown(math.ceil(room * self.request.shortlist / GENERATIONS)))
            if generation + 1 < GENERATIONS and not self.dry:
                self._timed("fit", partial(self._teach, scored))
        return scored

    def _grown(self, want: int) -> list[Lowered]:
        """Up to `want` programs lowered now, the last drafted first, then those that were kept and never proposed."""
        fresh = self._fresh(want)
        kept = [
            each
            for each in self.session.kept.values()
            if not {each.schedule_sha256, each.module_sha256} & self.unwanted
        ]
        self.session.kept.update({each.schedule_sha256: each for each in fresh})
        self._forget_old()
        return [*fresh, *kept]

    def _fresh(self, want: int) -> list[Lowered]:
        """Programs lowered now, unlike any that is known or kept; fewer than `want` when the spaces are dry."""
        unwanted = set(self.unwanted)
        for each in self.session.kept.values():
            unwanted |= {each.schedule_sha256, each.module_sha256}
        fresh: list[Lowered] = []
        stale = 0
        while len(fresh) < want and stale < STALE_BATCHES:
            found = self._batch(math.ceil((want - len(fresh)) * 1.05), unwanted)
            if found is None:
                break
            for each in found:
                unwanted |= {each.schedule_sha256, each.module_sha256}
            fresh += found
            stale = 0 if found else stale + 1
        self.dry = len(fresh) < want
        return fresh

    def _batch(self, count: int, unwanted: set[str]) -> list[Lowered] | None:
        """None when there are no more drafts."""
        drafts = self._timed("draft", lambda: self.drafter.more(count, unwanted))
        return self._lowered(drafts, unwanted) if drafts else None

    def _lowered(self, drafts: list[Draft], unwanted: set[str]) -> list[Lowered]:
        traces = [self.drafter.spaces[draft.space].trace(draft.decisions) for draft in drafts]
        return self.session.lowerer.lower(traces, self.random.randrange(2**30), unwanted)

    def _scored(self, pool: list[Lowered]) -> list[Scored]:
        """The best first; programs without features come last."""
        return self._timed("rank", partial(self._in_order, self.ranker, pool))

    def _in_order(self, ranker: Ranker, pool: list[Lowered]) -> list[Scored]:
        described = [(each, each.features) for each in pool if each.features is not None]
        contexts = [self._context(each.trace) for each, _ in described]
        scores = ranker.score([features for _, features in described], contexts)
        order = sorted(range(len(described)), key=lambda position: -scores[position])
        scored: list[Scored] = [(described[position][0], float(scores[position])) for position in order]
        return scored + [(each, None) for each in pool if each.features is None]

    def _picked(self, scored: list[Scored], room: int) -> list[Scored]:
        """The best, no two of them alike as long as there are others, and a few at random."""
        share = FIRST_EXPLORING_SHARE if len(self.verdicts) < FEW_RECORDS else EXPLORING_SHARE
        exploring = min(math.floor(room * share), max(0, len(scored) - room))
        picked: list[Scored] = []
        alike: list[Scored] = []
        for one in scored:
            if len(picked) == room - exploring:
                break
            near = any(differing_decisions(one[0].trace, other[0].trace) <= ALIKE for other in picked)
            (alike if near else picked).append(one)
        picked += alike[: room - exploring - len(picked)]
        taken = {each.schedule_sha256 for each, _ in picked}
        rest = [one for one in scored if one[0].schedule_sha256 not in taken]
        return picked + self.random.sample(rest, min(exploring, len(rest)))

    def _teach(self, scored: list[Scored]) -> None:
        """Let the drafter look at drafts as the ranker looks at programs."""
        told = [(each.trace, score) for each, score in scored if score is not None]
        self.drafter.learn([trace for trace, _ in told], [score for _, score in told])

    def _fitted_ranker(self) -> Ranker:
        ranker = self._ranker()
        own = [
            Example(self.request.workload_sha256, unpack(known.features), known.order_s, self._context(known.trace))
            for known in self.verdicts
            if usable(known.features)
        ]
        others = [
            Example(each.group, unpack(each.features), each.latency_s)
            for each in self.request.examples
            if each.group != self.request.workload_sha256 and usable(each.features)
        ]
        ranker.fit([*own, *others])
        return ranker

    def _ranker(self) -> Ranker:
        """The shipped model, then trees on the target's own records, where a model's files are missing, damaged or of
        another version."""
        name = "random" if self.request.default_only else self.request.ranker
        folder = None if self.request.model_folder is None else Path(self.request.model_folder)
        for model, stand_in in ((folder, "the shipped one"), (None, STAND_IN))[folder is None :]:
            try:
                return make_ranker(name, self.request.seed, model)
            except CostModelError as error:
                self.notes.append(f"the cost model cannot be used ({error}); {stand_in} ranks instead")
        return make_ranker(STAND_IN, self.request.seed)

    def _offer(self, source: str, schedules: int, fit: int) -> None:
        if schedules:
            self.offered[source] = Offered(schedules, fit)

    def _context(self, trace: TraceJson) -> Context:
        return Context(self.request.module, self.target, trace, self.elsewhere)

    def _proposal(self, lowered: Lowered, score: float | None) -> Proposal:
        self.unwanted |= {lowered.schedule_sha256, lowered.module_sha256}
        return Proposal(
            trace=lowered.trace,
            schedule_sha256=lowered.schedule_sha256,
            module_sha256=lowered.module_sha256,
            features=None if lowered.features is None else pack(lowered.features),
            predicted_score=score,
            source=self.session.origins.get(lowered.schedule_sha256, "search"),
        )

    def _forget_old(self) -> None:
        for key in list(self.session.kept)[: max(0, len(self.session.kept) - MAX_KEPT)]:
            del self.session.kept[key]

    def _timed(self, phase: str, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        result = work()
        self.clock[phase] += time.perf_counter() - started
        return result


def differing_decisions(one: TraceJson, other: TraceJson) -> float:
    """How many decisions tell two schedules apart; infinitely many when their instructions differ."""
    if one[0] != other[0]:
        return math.inf
    decided, others = dict(map(tuple, one[1])), dict(map(tuple, other[1]))
    return len([index for index in decided.keys() | others.keys() if decided.get(index) != others.get(index)])


def usable(features: bytes | None) -> TypeGuard[bytes]:
    """Features of this version's layout."""
    return features is not None and layout_of(features) == FEATURE_LAYOUT
