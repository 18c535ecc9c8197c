"""Measure stored bests again in fresh processes: do the records hold?

Works on the database itself, beside a running service or without one; the device's lease keeps both from measuring at
the same time.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from sqlalchemy import Engine

from crosstune.db.engine import create_engine, reading, retrying
from crosstune.db.migrate import require_head
from crosstune.db.repositories import devices, listing, projects, records, targets
from crosstune.db.repositories.listing import AuditCandidate
from crosstune.db.repositories.records import NewCandidate
from crosstune.service.calibrated import known_references_s
from crosstune.service.settings import Settings
from crosstune.service.steps.tuning import new_measurement, round_request
from crosstune.tuner.builder import Builder
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Attempt, CrosstuneError, RoundRequest, TargetSpec
from crosstune.tuner.remeasuring import measure_again
from crosstune.tuner.runner import Runner
from crosstune.tuner.targets import can_measure, detect_machine

TOLERANCE = 0.1
"""A stored latency is reproduced when the new one differs by at most this share of it."""
PATIENCE = 0.9
"""An audit has time: see `Runner`."""
LEASE_S = 300.0
"""Longer than any one measurement may take, since nothing renews it."""
WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Finding:
    record: str
    target: str
    stored_s: float
    measured_s: float | None
    reproduced: bool
    detail: str = ""


def run(settings: Settings, count: int, seed: int, record: bool = False) -> dict[str, Any]:
    """Audit the service's own database; see `audit_database`."""
    timeouts_s = (settings.build_timeout_s, settings.run_timeout_s)
    return audit_database(settings.database_url, timeouts_s, count, seed, record)


def audit_database(
    database_url: str, timeouts_s: tuple[float, float], count: int, seed: int, record: bool = False
) -> dict[str, Any]:
    """Re-measure up to `count` stored full measurements, bests first, over the targets that this machine can stand for.

    timeouts_s: of one build and of one run. `record` adds the new measurements to the records, which are judged anew.
    Answers how many there were, how many were reproduced within 10 %, and each finding. CrosstuneError when there is
    nothing to audit.
    """
    engine = create_engine(database_url)
    try:
        require_head(engine)
        with Template.start() as template:
            findings = _audit(engine, template, timeouts_s, count, seed, record)
    finally:
        engine.dispose()
    if not findings:
        raise CrosstuneError("there are no full measurements of a target that this machine can stand for; tune first")
    reproduced = sum(finding.reproduced for finding in findings)
    ratios = [finding.measured_s / finding.stored_s for finding in findings if finding.measured_s is not None]
    return {
        "audited": len(findings),
        "reproduced": reproduced,
        "reproduced_share": reproduced / len(findings),
        "median_ratio": median(ratios) if ratios else None,
        "findings": [asdict(finding) for finding in findings],
    }


def _audit(
    engine: Engine, template: Template, timeouts_s: tuple[float, float], count: int, seed: int, record: bool
) -> list[Finding]:
    machine = detect_machine(template)
    with reading(engine) as connection:
        rows = targets.list_page(connection, 200)
    usable = [row for row in rows if can_measure(TargetSpec.from_json(row.spec), machine) is None]
    findings: list[Finding] = []
    builder = Builder(template, 1, timeouts_s[0])
    with Runner(template, timeouts_s[1], known_references_s(engine), PATIENCE) as runner:
        for row in usable:
            with reading(engine) as connection:
                sample = listing.audit_sample(connection, row.key, count - len(findings), seed)
            spec = TargetSpec.from_json(row.spec)
            for candidate in sample:
                request = _request(engine, timeouts_s, spec, row.key, candidate)
                attempt = measure_again(builder, runner, request, candidate.trace, lambda: _device(engine))
                findings.append(_finding(candidate, row.id, attempt))
                if record:
                    _record(engine, row.key, candidate, attempt)
    return findings


def _request(
    engine: Engine, timeouts_s: tuple[float, float], spec: TargetSpec, target_key: int, candidate: AuditCandidate
) -> RoundRequest:
    with reading(engine) as connection:
        return round_request(
            connection,
            target=spec,
            target_key=target_key,
            workload_key=candidate.workload_key,
            project_key=projects.get(connection).key,
            trials=1,
            seed=0,
            build_timeout_s=timeouts_s[0],
            run_timeout_s=timeouts_s[1],
        )


def _record(engine: Engine, target_key: int, candidate: AuditCandidate, attempt: Attempt) -> None:
    fresh = NewCandidate(candidate.schedule_sha256, candidate.trace, (new_measurement(attempt, None, None, None),))
    retrying(
        engine,
        lambda connection: records.store(
            connection,
            target_key=target_key,
            workload_key=candidate.workload_key,
            candidates=[fresh],
            project_key=projects.get(connection).key,
        ),
    )


def _finding(candidate: AuditCandidate, target_id: str, attempt: Attempt) -> Finding:
    stored_s = candidate.latency_s
    if not attempt.latencies_s:
        return Finding(candidate.record_id, target_id, stored_s, None, False, attempt.detail)
    measured_s = median(attempt.latencies_s)
    reproduced = abs(measured_s / stored_s - 1.0) <= TOLERANCE
    return Finding(candidate.record_id, target_id, stored_s, measured_s, reproduced)


@contextmanager
def _device(engine: Engine) -> Iterator[None]:
    """This machine's device; CrosstuneError when a worker keeps it too long."""
    host, until = socket.gethostname(), time.monotonic() + WAIT_S
    device = retrying(engine, lambda connection: devices.register(connection, name=host, kind="local", host=host))
    lease = None
    while lease is None:
        if time.monotonic() > until:
            raise CrosstuneError(f"device {device.name} has been in use for {WAIT_S:g} s; try again later")
        lease = retrying(engine, lambda connection: devices.acquire(connection, device.id, "audit", LEASE_S))
        if lease is None:
            time.sleep(0.1)
    held = lease
    try:
        yield
    finally:
        retrying(engine, lambda connection: devices.release(connection, held))
