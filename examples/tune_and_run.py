"""Tune an ONNX network for this machine, then run what comes back.

    python examples/tune_and_run.py model.onnx [MINUTES]

No service needs to run: `crosstune.tune` starts one for as long as it takes. What it measures stays in the data
folder, so that a second run goes on from there.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING

import crosstune

if TYPE_CHECKING:
    from crosstune.service.schemas.jobs import JobEvent

DEFAULT_MINUTES = 5.0


def show(event: JobEvent) -> None:
    """One line per change of state and per round."""
    if event.kind == "state":
        print(event.data["state"])
    elif event.kind == "round":
        best_s = event.data["network_best_s"]
        estimate = "" if best_s is None else f", tasks take {1e3 * best_s:.2f} ms in sum"
        print(f"{event.data['job_trials']} trials{estimate}")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    minutes = float(sys.argv[2]) if len(sys.argv) == 3 else DEFAULT_MINUTES
    network = crosstune.tune(sys.argv[1], seconds=60 * minutes, on_event=show)

    latencies = network.manifest.latencies
    for name in ("untuned_s", "tuned_s", "reference_s"):
        print(f"{name}: {1e3 * latencies[name]:.2f} ms when it was built")
    print(f"now: {1e3 * median(network.latencies_s()):.2f} ms")

    # In place of random values: numpy arrays in the order of `network.inputs`, or by name.
    outputs = network(*network.random_inputs(seed=0))
    for name, value in outputs.items():
        print(f"{name}: {value.dtype}{list(value.shape)}")


if __name__ == "__main__":
    main()
