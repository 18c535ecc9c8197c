"""Time built candidates one after the other on this machine, and compare their output with the unscheduled program.

The caller holds the device. While one child runs, all others that ever ran a kernel are stopped: TVM's idle threads
spin for a tenth of a second after each parallel loop, bound to the very cores that the next candidate uses.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosstune.tuner.builder import Builder, BuildJob, Built, failed
from crosstune.tuner.child import Child, ChildError, Template
from crosstune.tuner.comparison import Comparison
from crosstune.tuner.contracts import (
    Attempt,
    ChildFailed,
    Invalidity,
    Quality,
    RoundRequest,
    TargetSpec,
    Workload,
)
from crosstune.tuner.settling import shake

MEASURE = "operations.measure_candidate:run"
EXPECTED = "operations.measure_candidate:expected"
COMPARE = "operations.measure_candidate:compare"
REFERENCE = "operations.reference_kernel:run"
REFERENCE_S = 30.0
"""Its first call compiles."""
FULL_FACTOR = 3.0
"""A full measurement may take this many times as long as a quick one."""
UNSCHEDULED_S = 120.0
"""The plain loops of a workload run on one thread, at a hundredth of the speed."""
SETTLE_S = 5.0
"""The longest wait for a disturbance to pass."""
DISTURBED_RATIO = 1.25
"""Reference kernel against its best: above this something else is running."""
KEPT = 32
"""Expected outputs kept in files, and reference kernels kept ready."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the unscheduled program answers on inputs from `seed`; see `operations.measure_candidate.expected`."""

    path: Path
    seed: int
    positive: bool
    reduction_length: int


class Runner:
    """Measures in the children of built candidates; one thread at a time.

    `known_references_s` has calibrated latencies of the reference kernel by target identity; `patience` is the share of
    its time that it may wait for a disturbance to pass.
    """

    def __init__(
        self,
        template: Template,
        timeout_s: float = 10.0,
        known_references_s: Mapping[str, float] | None = None,
        patience: float = 0.1,
        sandbox: str = "process",
    ) -> None:
        self._template, self._timeout_s, self._sandbox = template, timeout_s, sandbox
        self._best_references_s = dict(known_references_s or {})
        self._patience, self._since_s, self._waited_s = patience, time.monotonic(), 0.0
        self._references: OrderedDict[str, Child] = OrderedDict()
        self._expected: OrderedDict[tuple[str, str], Expected] = OrderedDict()
        self._last_reference: tuple[str, float] | None = None

    @property
    def best_reference_s(self) -> float | None:
        """The best that the reference kernel of the last asked target ever reached; None before it was run."""
        return None if self._last_reference is None else self._best_references_s[self._last_reference[0]]

    def reference(self, target: TargetSpec) -> float:
        """Seconds that the target's reference kernel takes now; see `disturbed`.

        Raises ChildFailed when it cannot be run.
        """
        latency_s = self._run_reference(target)
        best_s = self._best_references_s.get(target.identity, latency_s)
        self._best_references_s[target.identity] = min(best_s, latency_s)
        self._last_reference = (target.identity, latency_s)
        return latency_s

    def settle(self, target: TargetSpec) -> float:
        """Wait until the reference kernels are as fast as they should be, or patience ends; their latency then."""
        latency_s = self.reference(target)
        began_s = time.monotonic()
        most_s = min(SETTLE_S, self._patience * (began_s - self._since_s) - self._waited_s)
        while self.disturbed(latency_s) and time.monotonic() - began_s < most_s:
            shake(sorted(os.sched_getaffinity(0))[: target.cores])
            latency_s = self.reference(target)
        self._waited_s += time.monotonic() - began_s
        return latency_s

    def disturbed(self, reference_s: float) -> bool:
        """Whether the reference kernel was so slow that what was timed beside it is not to be believed."""
        return self.best_reference_s is not None and reference_s > DISTURBED_RATIO * self.best_reference_s

    def measure(self, built: Built, request: RoundRequest, quality: Quality, best_s: float | None) -> Attempt:
        """Time a candidate (QUICK or FULL); CENSORED as soon as it is clearly slower than `best_s`.

        The child stays alive, stopped, unless it failed. Raises ChildError for a fault that is not the candidate's.
        """
        payload = {**_arguments(request.workload), "quality": quality.value, "best_s": best_s}
        payload |= {"threads": request.target.cores, "seed": request.seed}
        timeout_s = request.run_timeout_s * (FULL_FACTOR if quality is Quality.FULL else 1.0)
        answer = self._call(built, MEASURE, payload, timeout_s)
        if isinstance(answer, Attempt):
            return answer
        conditions = {**answer["conditions"], "sandbox": self._sandbox, "build_s": built.build_s}
        if self._last_reference is not None and self._last_reference[0] == request.target.identity:
            conditions["reference_ratio"] = self._last_reference[1] / self._best_references_s[request.target.identity]
        return Attempt(tuple(answer["latencies_s"]), Quality(answer["quality"]), conditions=conditions)

    def check(self, built: Built, request: RoundRequest) -> Attempt | None:
        """None when the candidate's output is that of the unscheduled program, within rounding; else why not.

        The inputs are random, chosen after the candidate was built.
        """
        try:
            expected = self._expected_for(request)
        except ChildFailed as error:
            return failed(error.invalidity, f"the unscheduled program could not be run: {error.detail}")
        if isinstance(expected, Attempt):
            return expected
        payload = {**_arguments(request.workload), "threads": request.target.cores, **_inputs_of(expected)}
        answer = self._call(built, COMPARE, payload, request.run_timeout_s * FULL_FACTOR)
        if isinstance(answer, Attempt):
            return answer
        found = Comparison.from_json(answer)
        return None if found.problem is None else failed(Invalidity.CORRECTNESS, f"the output {found.problem}")

    def close(self) -> None:
        for child in self._references.values():
            child.close()
        self._references.clear()
        for expected in self._expected.values():
            expected.path.unlink(missing_ok=True)
        self._expected.clear()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, built: Built, function: str, payload: dict[str, Any], timeout_s: float) -> Any:
        try:
            answer = built.child.call(function, payload, timeout_s)
        except ChildFailed as error:
            return failed(error.invalidity, error.detail)
        except ChildError as error:
            if error.type_name != "KernelFailed":
                raise
            return failed(Invalidity.RUNTIME, error.message)
        built.child.pause()
        return answer

    def _run_reference(self, target: TargetSpec, *, again: bool = True) -> float:
        child = self._reference_child(target)
        try:
            answer = child.call(REFERENCE, {"target": target.to_json()}, REFERENCE_S)
        except ChildFailed:
            self._references.pop(target.identity).close()
            if again:  # the child may have died long ago
                return self._run_reference(target, again=False)
            raise
        child.pause()
        return float(answer["latency_s"])

    def _reference_child(self, target: TargetSpec) -> Child:
        if target.identity not in self._references:
            self._references[target.identity] = self._template.spawn("reference")
            if len(self._references) > KEPT:
                self._references.popitem(last=False)[1].close()
        return self._references[target.identity]

    def _expected_for(self, request: RoundRequest) -> Expected | Attempt:
        key = (request.workload.sha256, request.target.identity)
        if key not in self._expected:
            expected = self._run_unscheduled(request)
            if isinstance(expected, Attempt):
                return expected
            self._expected[key] = expected
            if len(self._expected) > KEPT:
                self._expected.popitem(last=False)[1].path.unlink(missing_ok=True)
        return self._expected[key]

    def _run_unscheduled(self, request: RoundRequest) -> Expected | Attempt:
        workload = request.workload
        job = BuildJob(workload.module, None, request.target, unscheduled=True)
        built = Builder(self._template, 1, UNSCHEDULED_S).build(job)
        if isinstance(built, Attempt):
            return built
        seed = secrets.randbelow(2**31)
        path = self._template.folder / f"expected-{workload.sha256[:16]}-{seed}.npz"
        payload = {**_arguments(workload), "module": workload.module, "seed": seed, "threads": 1, "path": str(path)}
        with built:
            answer = built.child.call(EXPECTED, payload, UNSCHEDULED_S)
        return Expected(path, seed, answer["positive"], answer["reduction_length"])


def _arguments(workload: Workload) -> dict[str, Any]:
    return {"args": [[dtype, list(shape)] for dtype, shape in workload.args], "output_count": workload.output_count}


def _inputs_of(expected: Expected) -> dict[str, Any]:
    return {
        "seed": expected.seed,
        "path": str(expected.path),
        "positive": expected.positive,
        "reduction_length": expected.reduction_length,
    }
