"""The demo: a real network, submitted to a real service, comes back faster. `make demo`

Starts `crosstune serve` on a free loopback port with a fresh data folder, registers this machine, submits the network,
shows the progress, prints what came of it, and asks the running service for the best schedules.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.networks import seeded_light
from benchmarks.report import CACHE, Claim
from crosstune import Client, load
from crosstune.service.embedded import embedded_service
from crosstune.service.progress import follow
from crosstune.service.schemas.builds import BuildOut
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn

GOAL_MINUTES = 6.0
DEFAULT_MINUTES = 3.5
"""Of tuning; what is left of six covers import, calibration, build and verification."""

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="an ONNX file; light_squeezenet with seeded weights by default")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="of tuning")
    parser.add_argument("--quick", action="store_true", help="ten seconds of tuning; not written as a result")
    options = parser.parse_args()
    minutes = 1 / 6 if options.quick else options.minutes
    started_s = time.monotonic()
    path = options.network or seeded_light("squeezenet")
    folder = CACHE / "demo" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    with embedded_service(folder) as url, Client(url) as client:
        console.print(f"service at [bold]{url}[/bold], data in {folder}")
        target = client.detect_target()
        console.print(f"target [bold]{target.name}[/bold]: {target.model}, {target.cores} cores")
        network = client.wait_network(client.upload_network(path).id)
        console.print(f"network [bold]{path.name}[/bold]: {network.task_count} tasks, {network.layout_note}")
        body = JobIn(network=network.id, target=target.id, budget=Budget(seconds=60 * minutes))
        job = follow(client, client.create_job(body).id, console)
        if job.build is None or job.failure is not None:
            raise SystemExit(f"the job {job.state}: {job.failure.detail if job.failure else job.stop_reason}")
        build = client.get_build(job.build)
        show_tasks(job)
        show_network(job, build)
        artifact = client.download_artifact(build.id, folder / "artifact")
        run_artifact(artifact)
        show_best(client, job, artifact)
    gone_minutes = (time.monotonic() - started_s) / 60
    console.print(f"{gone_minutes:.1f} minutes in all")
    if (options.network is None and minutes == DEFAULT_MINUTES) or options.quick:
        claim = Claim("demo_minutes", gone_minutes, "min", GOAL_MINUTES, "lower")
        data = figures(job, build)
        report.write("demo", "make demo", [claim], data, build_threads(build), options.quick)


def show_tasks(job: JobDetail) -> None:
    table = Table(title="tasks, the costliest first")
    for name in ("task", "calls", "MFLOP", "untuned ms", "best ms", "untuned GFLOP/s", "best GFLOP/s", "trials"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task in sorted(job.tasks, key=lambda one: -(one.weight * (one.untuned_latency_s or 0.0))):
        table.add_row(
            task.name,
            str(task.weight),
            f"{task.flops / 1e6:.2f}",
            milliseconds(task.untuned_latency_s),
            milliseconds(task.best_latency_s),
            speed(task.flops, task.untuned_latency_s),
            speed(task.flops, task.best_latency_s),
            str(task.trials),
        )
    console.print(table)


def show_network(job: JobDetail, build: BuildOut) -> None:
    table = Table(title="network", show_header=False)
    table.add_row("untuned (default schedules)", f"{milliseconds(build.untuned_latency_s)} ms")
    table.add_row("tuned", f"[bold]{milliseconds(build.tuned_latency_s)} ms[/bold]")
    table.add_row("onnxruntime, same cores and threads", f"{milliseconds(build.reference_latency_s)} ms")
    if build.tuned_latency_s and build.untuned_latency_s:
        table.add_row("speed-up over untuned", f"{build.untuned_latency_s / build.tuned_latency_s:.2f}x")
    table.add_row("largest output error against onnxruntime", f"{build.largest_error:.2e}")
    table.add_row("workloads with a tuned schedule", f"{build.workloads_applied} of {build.workloads_total}")
    table.add_row("trials", str(job.trials))
    table.add_row("trials per second", f"{job.trials / job.seconds:.2f}" if job.seconds else "-")
    console.print(table)


def run_artifact(artifact: Path) -> None:
    """Load what came back and run it once, as a user would."""
    network = load(artifact)
    outputs = network(*network.random_inputs(seed=time.time_ns() % 2**32))
    shown = {name: tuple(np.shape(value)) for name, value in outputs.items()}
    console.print(f"loaded the artifact and ran it on random input: outputs {shown}")


def show_best(client: Client, job: JobDetail, artifact: Path) -> None:
    best = client.best_schedules(job.target, network=job.network)
    measured = sum(schedule.label == "measured" for schedule in best.schedules)
    total = "" if best.latency_s is None else f", {milliseconds(best.latency_s)} ms in sum"
    console.print(f"best schedules: {measured} of {len(best.schedules)} workloads measured on this target{total}")
    console.print(f"  GET {client.base_url}/v1/schedules/best?target={job.target}&network={job.network}")
    console.print(f"  crosstune best --target {job.target} --network {job.network}")
    console.print(f"artifact: {artifact}")


def figures(job: JobDetail, build: BuildOut) -> dict[str, Any]:
    return {
        "tuned_latency_s": build.tuned_latency_s,
        "untuned_latency_s": build.untuned_latency_s,
        "onnxruntime_latency_s": build.reference_latency_s,
        "largest_error": build.largest_error,
        "trials": job.trials,
        "seconds": job.seconds,
        "trials_per_s": job.trials / job.seconds if job.seconds else None,
        "tasks": [task.model_dump(mode="json") for task in job.tasks],
    }


def build_threads(build: BuildOut) -> int:
    return int((build.manifest or {}).get("threads", 0))


def milliseconds(latency_s: float | None) -> str:
    return "-" if latency_s is None else f"{1e3 * latency_s:.3f}"


def speed(flops: float, latency_s: float | None) -> str:
    if not latency_s or not math.isfinite(flops) or flops <= 0:
        return "-"
    return f"{flops / latency_s / 1e9:.1f}"


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as error:
        raise SystemExit(str(error)) from error
