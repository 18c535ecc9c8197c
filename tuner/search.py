"""The search of a round, seen from the service: a request goes to a child with TVM, proposals come back.

A child is stateless as far as correctness goes: everything is in the request. It is kept for the next round of the
same workload only because it remembers what it has already lowered.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from crosstune.tuner.child import Child, ChildError, Template
from crosstune.tuner.contracts import (
    ChildFailed,
    Invalidity,
    KnownSchedule,
    MeasuredElsewhere,
    Offered,
    Quality,
    RoundRequest,
    TargetSpec,
    TraceJson,
    TrainingExample,
)

OPERATION = "operations.propose:propose"
TIMEOUT_S = 60.0
"""A round's search takes about a second; past this TVM is stuck in some pass."""
MOST_CHILDREN = 24
"""Workloads whose children are kept, the last used: each has some tens of MB of its own."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate worth measuring, not known before; its program is unlike any other of the round or known one."""

    trace: TraceJson
    schedule_sha256: str
    module_sha256: str
    features: bytes | None
    """None where TVM cannot describe the program."""
    predicted_score: float | None
    """Higher = faster within this round; None while the ranker has no opinion."""
    source: str
    """See CandidateResult."""


@dataclass(frozen=True, slots=True)
class Proposals:
    candidates: tuple[Proposal, ...]
    exhausted: bool
    """The space holds nothing new, as far as several tries could tell."""
    note: str
    """What kept the search from doing its best, for people; empty otherwise."""
    timings_s: dict[str, float]
    """context, fit, draft, replay, features, rank; search: all of these."""
    lowered: int
    """Programs among which these were chosen, newly lowered ones alone."""
    offered: dict[str, Offered]


class Searcher:
    """Asks children of `template` for proposals; one round at a time.

    A child serves one workload on one target. Those of the last workloads are kept: a job's rounds go back and forth
    between its tasks, and starting anew costs design spaces, the model's files and everything lowered so far.
    """

    def __init__(self, template: Template, timeout_s: float = TIMEOUT_S) -> None:
        self._template, self._timeout_s = template, timeout_s
        self._children: OrderedDict[tuple[str, str], Child] = OrderedDict()
        self._lock = threading.Lock()

    def propose(self, request: RoundRequest) -> Proposals:
        """Raises ChildFailed or ChildError when even the default schedule cannot be made."""
        serves = (request.workload.sha256, request.target.identity)
        with self._lock:
            try:
                return propose(self._ready_child(serves), request, timeout_s=self._timeout_s)
            except (ChildFailed, ChildError) as failure:
                self._drop(serves)
                if isinstance(failure, ChildFailed) and failure.invalidity is Invalidity.DEVICE_LOST:
                    raise
                # TVM's space generator crashes on some programs; these still get their default schedule.
                note = f"the search failed ({failure}); only the default schedule is tried"
                child = self._ready_child(serves)
                return propose(child, request, timeout_s=self._timeout_s, default_only=note)
            finally:
                if serves in self._children:
                    self._children[serves].pause()

    def close(self) -> None:
        with self._lock:
            for serves in list(self._children):
                self._drop(serves)

    def _ready_child(self, serves: tuple[str, str]) -> Child:
        if serves in self._children and not self._children[serves].alive:
            self._drop(serves)
        if serves not in self._children:
            while len(self._children) >= MOST_CHILDREN:
                self._drop(next(iter(self._children)))
            self._children[serves] = self._template.spawn("search")
        self._children.move_to_end(serves)
        return self._children[serves]

    def _drop(self, serves: tuple[str, str]) -> None:
        child = self._children.pop(serves, None)
        if child is not None:
            child.close()


def propose(child: Child, request: RoundRequest, *, timeout_s: float = TIMEOUT_S, default_only: str = "") -> Proposals:
    """At most `request.trials` proposals. `default_only`: a reason not to search; only the default is proposed."""
    answer = child.call(OPERATION, {**request_to_json(request), "default_only": default_only}, timeout_s)
    return Proposals(
        candidates=tuple(_proposal(item) for item in answer["candidates"]),
        exhausted=answer["exhausted"],
        note=answer["note"],
        timings_s=answer["timings_s"],
        lowered=answer["lowered"],
        offered={source: Offered(**counts) for source, counts in answer["offered"].items()},
    )


def proposal_to_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "trace": proposal.trace,
        "schedule_sha256": proposal.schedule_sha256,
        "module_sha256": proposal.module_sha256,
        "features": _text(proposal.features),
        "predicted_score": proposal.predicted_score,
        "source": proposal.source,
    }


def _proposal(item: dict[str, Any]) -> Proposal:
    return Proposal(**{**item, "features": _bytes(item["features"])})


def request_to_json(request: RoundRequest) -> dict[str, Any]:
    """What the search needs of a round's request."""
    return {
        "target": request.target.to_json(),
        "workload_sha256": request.workload.sha256,
        "module": request.workload.module,
        "known": [_known_to_json(known) for known in request.known],
        "examples": [[each.group, _text(each.features), each.latency_s] for each in request.examples],
        "trials": request.trials,
        "seed": request.seed,
        "ranker": request.ranker,
        "model_folder": request.model_folder,
        "attributes": request.attributes,
        "elsewhere": [one.to_json() for one in request.elsewhere],
        "near": request.near,
        "shortlist": request.shortlist,
        "unmeasured": request.unmeasured,
    }


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A round's request as the child sees it."""

    target: TargetSpec
    workload_sha256: str
    module: str
    known: tuple[KnownSchedule, ...]
    examples: tuple[TrainingExample, ...]
    trials: int
    seed: int
    ranker: str
    model_folder: str | None
    default_only: str
    attributes: dict[str, Any]
    elsewhere: tuple[MeasuredElsewhere, ...]
    near: tuple[TraceJson, ...]
    shortlist: float
    unmeasured: bool


def request_from_json(value: dict[str, Any]) -> SearchRequest:
    return SearchRequest(
        target=TargetSpec.from_json(value["target"]),
        workload_sha256=value["workload_sha256"],
        module=value["module"],
        known=tuple(_known_from_json(item) for item in value["known"]),
        examples=tuple(
            TrainingExample(group, base64.b64decode(features), latency_s)
            for group, features, latency_s in value["examples"]
        ),
        trials=value["trials"],
        seed=value["seed"],
        ranker=value["ranker"],
        model_folder=value["model_folder"],
        default_only=value["default_only"],
        attributes=value["attributes"],
        elsewhere=tuple(MeasuredElsewhere.from_json(one) for one in value["elsewhere"]),
        near=tuple(value["near"]),
        shortlist=value["shortlist"],
        unmeasured=value["unmeasured"],
    )


def _known_to_json(known: KnownSchedule) -> dict[str, Any]:
    return {
        "trace": known.trace,
        "schedule_sha256": known.schedule_sha256,
        "latency_s": known.latency_s,
        "quality": known.quality,
        "invalidity": known.invalidity,
        "features": _text(known.features),
        "module_sha256": known.module_sha256,
        "quick_s": known.quick_s,
    }


def _known_from_json(item: dict[str, Any]) -> KnownSchedule:
    return KnownSchedule(
        **{
            **item,
            "quality": None if item["quality"] is None else Quality(item["quality"]),
            "invalidity": None if item["invalidity"] is None else Invalidity(item["invalidity"]),
            "features": _bytes(item["features"]),
        }
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
