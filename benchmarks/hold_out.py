"""The list of held-out workloads: `make holdout` (exports the five networks, then runs this).

Each network is imported at several batch sizes, the BERTs at several lengths too, and every workload is listed by its
version-free key and by its anchor. The result is part of the package: cost_model/held_out.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import CACHE
from crosstune.tuner.child import Template
from crosstune.tuner.tasks import import_network
from crosstune.tuner.tvm_adapter.compute import anchor_key

FOLDER = CACHE / "held_out"
RESULT = Path(__file__).parent.parent / "cost_model" / "held_out.json"
BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (32, 64, 128, 256)
IMPORT_S = 600.0


def main() -> None:
    keys: set[str] = set()
    anchors: set[str] = set()
    networks: dict[str, int] = {}
    with Template.start() as template:
        for path in sorted(FOLDER.glob("*.onnx")):
            before = len(keys)
            for shape in shapes(path.stem):
                with template.spawn("import") as child:
                    network = import_network(child, path, {"input": shape}, IMPORT_S)
                keys |= {task.workload.version_free_key for task in network.tasks}
                found = {anchor_key(task.workload.module) for task in network.tasks}
                anchors |= {key for key in found if key is not None}
                print(path.stem, shape, len(network.tasks), flush=True)
            networks[path.stem] = len(keys) - before
    listed = {"networks": networks, "keys": sorted(keys), "anchors": sorted(anchors)}
    RESULT.write_text(json.dumps(listed, indent=0) + "\n")


def shapes(name: str) -> list[tuple[int, ...]]:
    if name.startswith("bert"):
        return [(batch, length) for batch in BATCHES for length in LENGTHS]
    return [(batch, 3, 224, 224) for batch in BATCHES]


if __name__ == "__main__":
    main()
