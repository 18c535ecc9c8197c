"""A worker whose rounds sleep as long as real ones take, and answer made-up candidates: for benchmarks of the service.

    python -m benchmarks.sleeping_worker NAME FROM TO TARGET

Everything but the search and the device is real: queue, leases, database, planning. The settings come from the
environment, as for `crosstune worker`; NAME is the device, which stands for TARGET. A round takes FROM to TO seconds.
It says a JSON line once it works.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time

from crosstune.db.engine import create_engine, retrying
from crosstune.db.repositories import devices, targets
from crosstune.service.settings import read_settings
from crosstune.service.worker import Worker
from crosstune.service.working import on_signals
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    Measuring,
    Quality,
    RoundRequest,
    RoundResult,
    ShouldStop,
    sha256_json,
)

POLL_S = 0.05


class SleepingRounds:
    """So many seconds on the device, drawn evenly, then as many candidates as were asked for, each a little faster than
    all before."""

    def __init__(self, seconds: tuple[float, float]) -> None:
        self._seconds = seconds

    def run(self, request: RoundRequest, measuring: Measuring, should_stop: ShouldStop) -> RoundResult:
        seconds = random.uniform(*self._seconds)
        with measuring():
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s and not should_stop():
                time.sleep(POLL_S)
        stopped = should_stop()
        known = len(request.known)
        found = () if stopped else tuple(candidate(request, known + index) for index in range(request.trials))
        return RoundResult(found, exhausted=False, stopped=stopped, reference_s=1e-3, timings_s={"run": seconds})

    def close(self) -> None:
        """Nothing is kept between rounds."""


def candidate(request: RoundRequest, number: int) -> CandidateResult:
    trace = [[["Nothing", [], [number], []]], []]
    latency_s = 1e-3 / (1 + number)
    return CandidateResult(
        trace=trace,
        schedule_sha256=sha256_json(trace),
        module_sha256=sha256_json([request.workload.sha256, number]),
        features=None,
        predicted_score=None,
        attempts=(Attempt((latency_s,) * 3, Quality.FULL, conditions={"threads": 1}),),
        source="default" if number == 0 else "search",
    )


def main() -> None:
    name, shortest, longest, target = sys.argv[1:]
    settings = read_settings()
    engine = create_engine(settings.database_url, pool_size=3)
    worker = Worker(settings, engine, name)
    worker.context.__dict__["rounds"] = SleepingRounds((float(shortest), float(longest)))
    identity = worker.context.identity
    retrying(
        engine,
        lambda connection: devices.stand_for(connection, identity.device_key, targets.get(connection, target).key),
    )
    stopped = threading.Event()
    with on_signals(stopped.set):
        worker.start()
        print(json.dumps({"worker": identity.worker_id, "pid": os.getpid()}), flush=True)
        stopped.wait()
        worker.stop()


if __name__ == "__main__":
    main()
