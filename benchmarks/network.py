"""Whole networks: default schedules, tuned, onnxruntime; and which networks of the wild import, tune and verify.

`python -m benchmarks.network` (after `make networks`). Everything goes through a running service, as a user's network
does. Each finished network is kept, so a broken run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.networks import LIGHT, exported, light_source, seeded_light
from benchmarks.report import Claim
from crosstune import Client
from crosstune.service.client import ClientError
from crosstune.service.embedded import embedded_service
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn
from crosstune.tuner.contracts import CrosstuneError

TUNED = ("squeezenet", "resnet50", "shufflenet")
MINUTES = 10.0
WILD_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one network, 20 s; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished networks of an earlier run")
    options = parser.parse_args()
    folder = report.kept_folder("network", options.quick, options.fresh)
    with embedded_service(folder / "service") as url, Client(url) as client:
        target = client.detect_target()
        bench = Bench(client, target.id, folder)
        if options.quick:
            tuned = [bench.tune("light_squeezenet", seeded_light("squeezenet"), 20.0)]
            imported, wild = [bench.import_only("light_squeezenet", light_source("squeezenet"))], []
        else:
            tuned = [bench.tune(f"light_{name}", seeded_light(name), 60.0 * MINUTES) for name in TUNED]
            imported = [bench.import_only(f"light_{name}", light_source(name)) for name in LIGHT]
            wild = [bench.tune(path.stem, path, WILD_SECONDS) for path in exported()]
        threads = target.cores
    path = report.write(
        "network",
        "make networks && python -m benchmarks.network",
        claims(tuned, imported, wild),
        {"tuned": tuned, "imported": imported, "wild": wild},
        threads,
        options.quick,
    )
    print(path)


class Bench:
    def __init__(self, client: Client, target: str, folder: Path) -> None:
        self.client, self.target, self.folder = client, target, folder

    def tune(self, name: str, path: Path, seconds: float) -> dict[str, Any]:
        """Import, tune for `seconds`, build and verify; a failure is a row with its reason."""
        kept = self.folder / f"{name}.{seconds:g}s.json"
        if kept.exists():
            found: dict[str, Any] = json.loads(kept.read_text())
            return found
        row: dict[str, Any] = {"network": name, "seconds": seconds}
        try:
            network = self.client.wait_network(self.client.upload_network(path, name=name).id)
            row |= {"layout": network.layout, "layout_note": network.layout_note, "tasks": network.task_count}
            body = JobIn(network=network.id, target=self.target, budget=Budget(seconds=seconds), whole_budget=True)
            row |= self._figures(self.client.wait(self.client.create_job(body).id))
        except (ClientError, CrosstuneError) as error:
            row["failure"] = str(error)
        print(json.dumps({key: value for key, value in row.items() if key != "by_task"}), flush=True)
        kept.write_text(json.dumps(row))
        return row

    def _figures(self, job: JobDetail) -> dict[str, Any]:
        row: dict[str, Any] = {
            "state": job.state,
            "trials": job.trials,
            "tuning_s": job.seconds,
            "sum_of_tasks_s": job.best_latency_s,
            "sum_of_default_tasks_s": job.untuned_latency_s,
            "by_task": [task.model_dump(mode="json") for task in job.tasks],
        }
        if job.build is None or job.failure is not None:
            return row | {"failure": job.failure.detail if job.failure else f"no build: {job.stop_reason}"}
        build = self.client.get_build(job.build)
        return row | {
            "default_s": build.untuned_latency_s,
            "tuned_s": build.tuned_latency_s,
            "onnxruntime_s": build.reference_latency_s,
            "largest_error": build.largest_error,
            "workloads_applied": build.workloads_applied,
            "workloads_total": build.workloads_total,
        }

    def import_only(self, name: str, path: Path) -> dict[str, Any]:
        """Import a network as it is shipped."""
        row: dict[str, Any] = {"network": name}
        try:
            network = self.client.wait_network(self.client.upload_network(path, name=f"{name}-as-shipped").id)
            row |= {"layout": network.layout, "layout_note": network.layout_note, "tasks": network.task_count}
        except (ClientError, CrosstuneError) as error:
            row["failure"] = str(error)
        return row


def claims(tuned: list[dict[str, Any]], imported: list[dict[str, Any]], wild: list[dict[str, Any]]) -> list[Claim]:
    whole = [row for row in tuned if row.get("tuned_s")]
    speedups = [row["default_s"] / row["tuned_s"] for row in whole]
    over_sum = [row["tuned_s"] / row["sum_of_tasks_s"] for row in whole if row["sum_of_tasks_s"]]
    against = [row["onnxruntime_s"] / row["tuned_s"] for row in whole]
    found = [row["workloads_applied"] / row["workloads_total"] for row in [*whole, *wild] if row.get("workloads_total")]
    fine = [row for row in imported if row.get("tasks")] + [row for row in wild if row.get("tuned_s")]
    complete = len(whole) == len(tuned)
    geomean = math.exp(sum(map(math.log, against)) / len(against)) if complete else None
    return [
        Claim("tuned_over_default_min", min(speedups) if complete else None, "x", 1.5, "higher", _range(speedups), 3),
        Claim("network_over_sum_of_tasks", max(over_sum, default=None), "", 1.1, "lower", _range(over_sum), 3),
        Claim("workloads_found_on_apply", min(found, default=None), "", 1, "higher", None, len(found)),
        Claim("onnxruntime_over_tuned_geomean", geomean, "x", 0.7, "higher", _range(against), len(against)),
        Claim("networks_imported", len(fine), "", 21, "higher", None, len(imported) + len(wild)),
    ]


def _range(values: list[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


if __name__ == "__main__":
    main()
