"""What a build takes for workloads that nobody tuned on its target: a schedule from elsewhere, or one proposed now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.repositories import listing, projects, targets, workloads
from crosstune.db.repositories.builds import BuildRow
from crosstune.db.repositories.targets import TargetRow
from crosstune.service import expecting
from crosstune.service.heart import Held
from crosstune.service.pins import Pin, default_pin, label_of
from crosstune.service.schedules import seconds
from crosstune.service.schemas.schedules import Label
from crosstune.service.steps.context import Stopped, WorkerContext
from crosstune.service.steps.tuning import round_request
from crosstune.tuner.builder import Builder
from crosstune.tuner.contracts import PinnedSchedule, RoundRequest, TargetSpec, TraceJson
from crosstune.tuner.search import Searcher
from crosstune.tuner.untried import NothingUsable, Untried

UNTRIED = frozenset({Label.TRANSFERRED, Label.PREDICTED})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pin that was never tried on the build's target, with what is expected of its workload there."""

    pin: Pin
    trace: TraceJson | None
    """None when it is to be proposed."""
    workload_key: int
    project_key: int
    target: TargetRow


def gather(connection: Connection, build: BuildRow) -> list[Candidate]:
    pins = [pin for pin in build.schedules if label_of(pin) in UNTRIED]
    if not pins:
        return []
    project = projects.get(connection, build.project_id)
    target = targets.get_by_key(connection, build.target_key)
    rows = {row.sha256: row for row in workloads.find(connection, [pin["workload"] for pin in pins])}
    expected = expecting.expected(connection, project.key, target, list(rows.values()))
    found = []
    for pin in pins:
        key = rows[pin["workload"]].key
        trace = listing.get(connection, pin["record"], project.key).trace if "record" in pin else None
        found.append(Candidate({**pin, **seconds(expected.get(key))}, trace, key, project.key, target))
    return found


def request_of(context: WorkerContext, connection: Connection, candidate: Candidate) -> RoundRequest:
    """A first round of the workload with everything that is known of it."""
    return round_request(
        connection,
        target=TargetSpec.from_json(candidate.target.spec),
        target_key=candidate.target.key,
        workload_key=candidate.workload_key,
        project_key=candidate.project_key,
        trials=1,
        seed=0,
        build_timeout_s=context.settings.build_timeout_s,
        run_timeout_s=context.settings.run_timeout_s,
        ranker=context.settings.ranker,
    )


def resolve(context: WorkerContext, held: Held, candidates: Sequence[Candidate]) -> list[Pin]:
    """Pins that can be used, their traces with them; those that cannot say why. Raises Stopped."""
    if not candidates:
        return []
    searcher = Searcher(context.template)
    builder = Builder(context.template, 1, context.settings.build_timeout_s)
    tools = Untried(searcher, builder, context.runner)
    found = []
    try:
        for candidate in candidates:
            if held.should_stop():
                raise Stopped
            with reading(context.engine) as connection:
                request = request_of(context, connection, candidate)
            found.append(_resolved(tools, candidate, request))
    finally:
        searcher.close()
    return found


def _resolved(tools: Untried, candidate: Candidate, request: RoundRequest) -> Pin:
    pin = candidate.pin
    try:
        if candidate.trace is not None:
            tools.check(request, candidate.trace)
            return {**pin, "trace": candidate.trace}
        proposed = tools.proposed(request)
    except NothingUsable as problem:
        return default_pin(pin["workload"], f"no {pin['label']} schedule: {problem}")
    return {**pin, "schedule_sha256": proposed.schedule_sha256, "trace": proposed.trace}


def schedules_of(pins: Sequence[Pin]) -> tuple[PinnedSchedule, ...]:
    """Of resolved pins."""
    return tuple(
        PinnedSchedule(
            workload_sha256=pin["workload"],
            trace=pin["trace"],
            schedule_sha256=pin["schedule_sha256"],
            latency_s=pin.get("latency_s"),
            label=pin["label"],
            expected_latency_s=pin.get("expected_latency_s"),
        )
        for pin in pins
        if pin["schedule_sha256"] is not None
    )
