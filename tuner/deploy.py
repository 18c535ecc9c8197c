"""Build a network that may be deployed: compile, verify, time, and only then write its manifest.

Parent side: no TVM here, each step runs in children. The steps are separate functions so that a worker can hold its
device only while `time_network` runs:

    compiled, verification = compile_verified(template, request, should_stop)
    with measuring():
        timings = time_network(template, compiled)
    outcome = finish(compiled, verification, timings)
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crosstune.tuner.child import Child, ChildError, Template
from crosstune.tuner.comparison import Comparison
from crosstune.tuner.contracts import (
    BuildOutcome,
    BuildRequest,
    ChildFailed,
    NetworkRefused,
    ShouldStop,
    TargetSpec,
    TraceJson,
)
from crosstune.tuner.manifest import (
    LIBRARY_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Manifest,
    Port,
    sha256_file,
    write_manifest,
)
from crosstune.tuner.reference import LEVELS
from crosstune.tuner.runner import Runner

WORK_FOLDER = ".work"
INPUT_SETS = 3
KERNEL_CHECK_S = 120.0
"""An unscheduled kernel of 10 GFLOP runs 10 s; the rest is for a busy machine."""
MOST_CHECKERS = 4
TIMING_S = 2.0
TIMING_TRIES = 3
"""Timings of both builds at most, while something disturbs them; the last then counts."""
REFERENCE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Compiled:
    """A network compiled twice, with the pinned and with default schedules, and not yet checked."""

    request: BuildRequest
    manifest: Manifest | None
    """Without verification, latencies and files; None when `refused`."""
    refused: str | None
    timings_s: dict[str, float]

    @property
    def folder(self) -> Path:
        return Path(self.request.output_folder).resolve()  # children work in folders of their own

    @property
    def work(self) -> Path:
        return self.folder / WORK_FOLDER

    def paths(self) -> dict[str, str]:
        """The files, as the operations name them."""
        return {
            "library": str(self.folder / LIBRARY_NAME),
            "weights": str(self.folder / WEIGHTS_NAME),
            "untuned": str(self.work / "untuned.so"),
            "reference": str(self.work / "reference.onnx"),
            "kernels": str(self.work / "kernels.json"),
            "inputs": str(self.work / "inputs.npz"),
            "outputs": str(self.work / "outputs.npz"),
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """`refused` says what is wrong; `report` goes into the manifest."""

    refused: str | None
    largest_error: float | None
    """Of the whole network, absolute, over all outputs (logarithms of probabilities); None when it is infinite."""
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per inference, same machine, cores and threads."""

    tuned_s: float
    untuned_s: float
    reference_s: float
    report: dict[str, Any]


def compile_network(template: Template, request: BuildRequest) -> Compiled:
    """Compile with the pinned schedules and, beside it, with default ones.

    A schedule that cannot be used ends in `refused`. Raises NetworkRefused for a network that cannot be imported,
    ChildFailed when a compiler process dies or takes longer than the request's time.
    """
    start = time.monotonic()
    compiled = Compiled(request, None, None, {})
    shutil.rmtree(compiled.work, ignore_errors=True)
    compiled.work.mkdir(parents=True)
    (compiled.folder / MANIFEST_NAME).unlink(missing_ok=True)
    paths = compiled.paths()
    payload = {
        "target": request.target.to_json(),
        "network_path": str(Path(request.network_path).resolve()),
        "shapes": {name: list(shape) for name, shape in request.shapes.items()},
        "seed": request.seed,
        "schedules": [asdict(schedule) for schedule in request.schedules],
        "library": paths["library"],
        **{name: paths[name] for name in ("weights", "reference", "kernels")},
    }
    untuned = {key: payload[key] for key in ("target", "network_path", "shapes", "seed")}
    untuned |= {"library": paths["untuned"], "schedules": []}
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(_compile_one, template, name, each, request.timeout_s)
            for name, each in (("build-tuned", payload), ("build-untuned", untuned))
        ]
        tuned, plain = (answer.result() for answer in answers)
    timings_s = {**tuned.get("timings_s", {}), "wall": time.monotonic() - start}
    if tuned["refused"] is not None:
        return replace(compiled, refused=tuned["refused"], timings_s=timings_s)
    if plain["parameters"] != tuned["parameters"]:
        raise RuntimeError("the tuned and the untuned build take different parameters")
    return replace(compiled, manifest=_manifest(request, tuned), timings_s=timings_s)


def compile_verified(
    template: Template, request: BuildRequest, should_stop: ShouldStop
) -> tuple[Compiled, Verification]:
    """Compile and verify. Where schedules that were never tried on the target spoil it, once more with the default ones
    in their place: each was right alone, but the network decides. `request` of the answer says what was used.

    A measured schedule that fails is a refusal: it was right before, so something is wrong that a default would hide.
    Raises as `compile_network`.
    """
    try:
        compiled = compile_network(template, request)
        verification = verify(template, compiled)
        problem = verification.refused
    except ChildFailed as failure:
        if request.all_tried or should_stop():
            raise
        problem = str(failure)
    if problem is not None and not request.all_tried and not should_stop():
        return compile_verified(template, request.without_untried(f"the network fails with it: {problem}"), should_stop)
    return compiled, verification


def _compile_one(template: Template, name: str, payload: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    with template.spawn(name) as child:
        answer: dict[str, Any] = child.call("operations.build_network:run", payload, timeout_s)
    if "network_refused" in answer:
        raise NetworkRefused(**answer["network_refused"])
    return answer


def _manifest(request: BuildRequest, facts: dict[str, Any]) -> Manifest:
    wanted = {schedule.workload_sha256 for schedule in request.schedules}
    return Manifest(
        target=request.target,
        tvm_version=facts["tvm_version"],
        architecture=facts["architecture"],
        cpu_features=tuple(facts["cpu_features"]),
        threads=request.target.cores,
        inputs=tuple(Port.from_json(port) for port in facts["inputs"]),
        outputs=tuple(Port.from_json(port) for port in facts["outputs"]),
        parameters=tuple(facts["parameters"]),
        pipeline_version=facts["pipeline_version"],
        layout=facts["layout"],
        synthetic_weights=facts["synthetic_weights"],
        schedules=tuple(
            {**each, "reason": request.defaults.get(each["workload_sha256"])} for each in facts["schedules"]
        ),
        workloads_applied=len(wanted.intersection(facts["applied"])),
        workloads_total=len(wanted),
    )


def verify(template: Template, compiled: Compiled) -> Verification:
    """Every distinct kernel against its unscheduled form, then the network against onnxruntime.

    Inputs are random and drawn now, after the compilation, so that nothing can be fitted to them. Whatever goes wrong
    while the compiled code runs (a crash, a hang) is a refusal.
    """
    if compiled.refused is not None or compiled.manifest is None:
        return Verification(compiled.refused or "not compiled", None)
    seed = secrets.randbits(32)
    kernels, problem = _check_kernels(template, compiled, seed)
    report: dict[str, Any] = {"seed": seed, "kernels": kernels}
    if problem is None:
        with template.spawn("verify") as child:
            problem = _run_network(child, compiled, seed)
    if problem is not None:
        return Verification(problem, None, report)
    with template.spawn("reference") as child:
        try:
            comparisons = _compare(child, compiled)
        except (ChildFailed, ChildError) as error:
            return Verification(f"onnxruntime cannot run the network, so it cannot be verified: {error}", None, report)
    report["outputs"] = {
        port.name: comparison.to_json() for port, comparison in zip(compiled.manifest.outputs, comparisons, strict=True)
    }
    report["weights"] = "synthetic" if compiled.manifest.synthetic_weights else "real"
    largest_error = max(comparison.largest_absolute for comparison in comparisons)
    problem = _output_problem(compiled.manifest, comparisons)
    return Verification(problem, largest_error if math.isfinite(largest_error) else None, report)


def _check_kernels(template: Template, compiled: Compiled, seed: int) -> tuple[list[dict[str, Any]], str | None]:
    """The report of every kernel, and what is wrong with the first wrong one.

    Unscheduled kernels run on one core, so several children share the list.
    """
    kernels = json.loads(Path(compiled.paths()["kernels"]).read_text())
    children = min(compiled.request.target.cores, MOST_CHECKERS, len(kernels)) or 1
    shares = [range(first, len(kernels), children) for first in range(children)]
    with ThreadPoolExecutor(children) as pool:
        answers = list(pool.map(lambda share: _check_share(template, compiled, kernels, share, seed), shares))
    report = [entry for entries, _ in answers for entry in entries]
    return report, next((problem for _, problem in answers if problem is not None), None)


def _check_share(
    template: Template, compiled: Compiled, kernels: Sequence[dict[str, Any]], share: Iterable[int], seed: int
) -> tuple[list[dict[str, Any]], str | None]:
    report: list[dict[str, Any]] = []
    payload = {name: compiled.paths()[name] for name in ("library", "kernels")}
    with template.spawn("check") as child:
        for index in share:
            kernel = kernels[index]
            name = f"the kernel {kernel['name']} (workload {kernel['workload_sha256'][:12]})"
            facts = {"index": index, "target": compiled.request.target.to_json(), "seed": seed}
            try:
                answer = child.call("operations.verify_network:check_kernel", payload | facts, KERNEL_CHECK_S)
            except (ChildFailed, ChildError) as error:
                return report, f"{name} cannot be run: {error}"
            comparison = Comparison.from_json(answer)
            report.append({"workload_sha256": kernel["workload_sha256"], **comparison.to_json()})
            if (problem := comparison.problem) is not None:
                return report, f"{name} computes something else than its unscheduled form: its output {problem}"
    return report, None


def _run_network(child: Child, compiled: Compiled, seed: int) -> str | None:
    """Run the network in `child`; a sentence when it crashed, hung or raised."""
    paths = compiled.paths()
    payload: dict[str, Any] = {"seed": seed, "sets": INPUT_SETS}
    payload |= {name: paths[name] for name in ("library", "weights", "inputs", "outputs")}
    try:
        child.call("operations.verify_network:run_network", payload | _facts(compiled), KERNEL_CHECK_S)
    except (ChildFailed, ChildError) as error:
        return f"the network cannot be run: {error}"
    return None


def _compare(child: Child, compiled: Compiled) -> list[Comparison]:
    paths = compiled.paths()
    payload = {name: paths[name] for name in ("reference", "inputs", "outputs")} | {"sets": INPUT_SETS}
    answers = child.call("operations.verify_network:compare", payload | _facts(compiled), REFERENCE_TIMEOUT_S)
    return [Comparison.from_json(answer) for answer in answers]


def _facts(compiled: Compiled) -> dict[str, Any]:
    return {"manifest": compiled.manifest.to_json() if compiled.manifest else None}


def _output_problem(manifest: Manifest, comparisons: Sequence[Comparison]) -> str | None:
    for port, comparison in zip(manifest.outputs, comparisons, strict=True):
        if comparison.problem is not None:
            return f"output {port.name!r} {comparison.problem} (against onnxruntime, on random inputs)"
    return None


def time_network(
    template: Template, compiled: Compiled, runner: Runner | None = None, duration_s: float = TIMING_S
) -> Timings:
    """Time both builds in alternation and onnxruntime before and after them; hold the device while this runs.

    Each is timed for `duration_s` at least, again where the `runner` says that something disturbed it. Each process
    that runs kernels is gone before the next one starts, since their threads spin. `verify` must have run.
    """
    target = compiled.request.target
    _settle(runner, target)
    before = _time_reference(template, compiled, duration_s, LEVELS)
    paths = compiled.paths()
    payload = {
        "libraries": {"untuned": paths["untuned"], "tuned": paths["library"]},
        "weights": paths["weights"],
        "duration_s": duration_s,
    }
    ours = _time_builds(template, payload | _facts(compiled), target, runner)
    _settle(runner, target)
    after = _time_reference(template, compiled, duration_s, [before["level"]])
    reference = {**before, "latency_s": min(float(before["latency_s"]), float(after["latency_s"]))}
    tuned_s, untuned_s = float(ours["tuned"]["median_s"]), float(ours["untuned"]["median_s"])
    report = {"tuned_s": tuned_s, "untuned_s": untuned_s, "reference_s": reference["latency_s"]}
    report |= {"tuned": ours["tuned"], "untuned": ours["untuned"], "onnxruntime": reference}
    return Timings(tuned_s, untuned_s, reference["latency_s"], report)


def _time_builds(
    template: Template, payload: dict[str, Any], target: TargetSpec, runner: Runner | None
) -> dict[str, Any]:
    for tries_left in reversed(range(TIMING_TRIES)):
        before_s = _settle(runner, target)
        with template.spawn("time") as child:
            answer: dict[str, Any] = child.call("operations.time_network:builds", payload, REFERENCE_TIMEOUT_S)
        if runner is None or not tries_left or not runner.disturbed(max(before_s, runner.reference(target))):
            break
    return answer


def _settle(runner: Runner | None, target: TargetSpec) -> float:
    return 0.0 if runner is None else runner.settle(target)


def _time_reference(template: Template, compiled: Compiled, duration_s: float, levels: Iterable[str]) -> dict[str, Any]:
    paths = compiled.paths()
    payload: dict[str, Any] = {
        "reference": paths["reference"],
        "inputs": paths["inputs"],
        "duration_s": duration_s,
        "levels": list(levels),
    }
    with template.spawn("time-reference") as child:
        answer: dict[str, Any] = child.call(
            "operations.time_network:reference", payload | _facts(compiled), REFERENCE_TIMEOUT_S
        )
    return answer


def finish(compiled: Compiled, verification: Verification, timings: Timings | None) -> BuildOutcome:
    """Complete the artifact with its manifest, or, when it was refused, remove what must not be used."""
    shutil.rmtree(compiled.work, ignore_errors=True)
    manifest = compiled.manifest
    if verification.refused is not None or manifest is None or timings is None:
        for name in (LIBRARY_NAME, WEIGHTS_NAME):
            (compiled.folder / name).unlink(missing_ok=True)
        refused = verification.refused or "the network was not timed"
        return BuildOutcome(
            manifest={"verification": verification.report, "refused": refused},
            tuned_latency_s=None,
            untuned_latency_s=None,
            reference_latency_s=None,
            largest_error=verification.largest_error,
            workloads_applied=manifest.workloads_applied if manifest else 0,
            workloads_total=len(compiled.request.schedules),
            refused=refused,
        )
    files = {name: sha256_file(compiled.folder / name) for name in (LIBRARY_NAME, WEIGHTS_NAME)}
    complete = replace(manifest, verification=verification.report, latencies=timings.report, files=files)
    write_manifest(compiled.folder, complete)
    return BuildOutcome(
        manifest=complete.to_json(),
        tuned_latency_s=timings.tuned_s,
        untuned_latency_s=timings.untuned_s,
        reference_latency_s=timings.reference_s,
        largest_error=verification.largest_error,
        workloads_applied=complete.workloads_applied,
        workloads_total=complete.workloads_total,
    )


def export_tvm_database(
    template: Template,
    target: TargetSpec,
    entries: Sequence[tuple[str, TraceJson, float]],
    folder: Path,
    network: BuildRequest | None = None,
    timeout_s: float = 300.0,
) -> int:
    """Write schedules as TVM's own JSON database (`database_workload.json`, `database_tuning_record.json`).

    `entries`: (workload module as TVM's JSON, trace, latency in seconds), all of `target`. With `network` also
    `network.json`, that network after our graph pipeline, on which plain `MetaScheduleApplyDatabase(work_dir=folder)`
    applies them (`main` takes inputs, then weights). Answers how many records were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload: dict[str, Any] = {"target": target.to_json(), "folder": str(folder.resolve())}
    payload["entries"] = [list(entry) for entry in entries]
    if network is not None:
        shapes = {name: list(shape) for name, shape in network.shapes.items()}
        payload["network"] = {
            "network_path": str(Path(network.network_path).resolve()),
            "shapes": shapes,
            "seed": network.seed,
        }
    with template.spawn("export-database") as child:
        return int(child.call("operations.export_database:run", payload, timeout_s))
