"""Finished cases of the cost model's benchmark, kept in the repository, so that a run of many hours can go on anywhere.

How well a model ranks does not depend on the machine that trains it. It does depend on code and data: cases that other
code or data made are forgotten.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from collections.abc import Iterable
from pathlib import Path

KEPT = Path(__file__).parent / "kept" / "cost_model.jsonl.xz"
CODE = ("crosstune.cost_model.", "benchmarks.cost_model_cases")


def fingerprint(settings: str, data: Iterable[Path]) -> str:
    """Of the cost model's code as far as it is imported now, of the files that it learns from, and of the settings."""
    files = [(name, Path(sys.modules[name].__file__ or "")) for name in sys.modules if name.startswith(CODE)]
    files += [(path.name, path) for path in data]
    # Sorted as text: the order of paths depends on where the clone and the data lie.
    lines = sorted(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in files)
    return hashlib.sha256("\n".join([settings, *lines]).encode()).hexdigest()


def unpack(folder: Path, wanted: str, kept: Path = KEPT) -> int:
    """Write the kept cases into `folder`, unless another fingerprint made them; returns how many there were."""
    if not kept.exists():
        return 0
    with lzma.open(kept, "rt") as lines:
        if json.loads(next(lines))["fingerprint"] != wanted:
            return 0
        cases = [json.loads(line) for line in lines]
    for case in cases:
        (folder / case["name"]).write_text(json.dumps(case["scores"]))
    return len(cases)


def pack(folder: Path, made_by: str, kept: Path = KEPT) -> None:
    """Replace what is kept by all cases in `folder`."""
    kept.parent.mkdir(exist_ok=True)
    scratch = kept.with_suffix(".part")
    with lzma.open(scratch, "wt", preset=9) as lines:
        lines.write(json.dumps({"fingerprint": made_by}) + "\n")
        for path in sorted(folder.glob("*.json")):
            lines.write(json.dumps({"name": path.name, "scores": json.loads(path.read_text())}) + "\n")
    scratch.replace(kept)
