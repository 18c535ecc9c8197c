"""The best latencies that come with the package, so that a fresh installation can tell what to expect.

    python -m crosstune.cost_model.bests FOLDER...

makes the table from what `crosstune dataset collect` wrote, without the workloads of held-out networks (`make bests`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from crosstune.cost_model.expectation import Best, Computation, Place
from crosstune.cost_model.formats.collected import RECORDS, TARGETS, WORKLOADS
from crosstune.cost_model.formats.lines import NumberedLines
from crosstune.cost_model.hold_out import is_held_out
from crosstune.cost_model.pretrained import bests_file
from crosstune.cost_model.tokens.hardware import UNITS, hardware_token


@dataclass(frozen=True, slots=True)
class Table:
    """computations: name and key, operations, arguments; targets: fields with attributes by identity; bests: places of
    the computation and of the target, and seconds."""

    computations: list[Computation]
    targets: dict[str, Mapping[str, Any]]
    bests: list[tuple[int, int, float]]

    def __iter__(self) -> Iterator[Best]:
        places = [place_of(identity, target) for identity, target in self.targets.items()]
        for computation, target, latency_s in self.bests:
            yield Best(self.computations[computation], places[target], latency_s)


@cache
def shipped() -> tuple[Best, ...]:
    """The table in the package."""
    return tuple(read(bests_file()))


def place_of(identity: str, target: Mapping[str, Any]) -> Place:
    """target: its fields, with `attributes` of its hardware."""
    token = hardware_token(json.dumps(target, sort_keys=True))
    return Place.of(identity, str(target.get("model", "")), token)


def computation_of(line: Mapping[str, Any]) -> Computation:
    """line: of a workload, with its key, name, operations and arguments."""
    arguments = tuple((str(dtype), tuple(int(size) for size in sizes)) for dtype, sizes in line["args"])
    return Computation(line["version_free_key"], line["name"], float(line["flops"]), arguments)


def read(path: Path) -> Table:
    value = json.loads(path.read_text())
    computations = [computation_of(line) for line in value["workloads"]]
    return Table(computations, value["targets"], [(row[0], row[1], row[2]) for row in value["bests"]])


def write(path: Path, table: Table) -> None:
    """As JSON, an entry a line."""
    workloads = [
        {"version_free_key": each.key, "name": each.name, "flops": each.flops, "args": each.arguments}
        for each in table.computations
    ]
    targets = [f"{_text(identity)}:{_text(target)}" for identity, target in table.targets.items()]
    parts = {
        "targets": ("{", targets, "}"),
        "workloads": ("[", map(_text, workloads), "]"),
        "bests": ("[", map(_text, table.bests), "]"),
    }
    texts = [f'"{name}":{start}\n' + ",\n".join(entries) + f"\n{end}" for name, (start, entries, end) in parts.items()]
    path.write_text("{" + ",\n".join(texts) + "}\n")


def collected(folders: Iterable[Path], held_out: bool = False) -> Table:
    """What collections found, of workloads that are held out, or of the others.

    A latency is the lowest median of a program's full measurements (cold weights), or of its quick ones where a
    workload has no full ones, as a service judges its records. Folders without targets or arguments are passed over:
    an early collector's, of another graph pipeline.
    """
    computations: dict[str, Computation] = {}
    targets: dict[str, Mapping[str, Any]] = {}
    found: dict[tuple[str, str], tuple[bool, float]] = {}
    for folder in folders:
        known = {line["workload"]: line for line in _read(folder, WORKLOADS) if "args" in line}
        wanted = {name: computation_of(line) for name, line in known.items() if _is_held_out(line) == held_out}
        specs = {line["target"]: line["spec"] for line in _read(folder, TARGETS)}
        for line in _read(folder, RECORDS):
            timed = _timed(line)
            if timed is None or line["workload"] not in wanted or line["target"] not in specs:
                continue
            computation = wanted[line["workload"]]
            computations.setdefault(computation.key, computation)
            targets.setdefault(line["target"], _described(specs[line["target"]]))
            pair = (computation.key, line["target"])
            found[pair] = min(timed, found.get(pair, timed))
    rows, columns = list(computations), list(targets)
    bests = [(rows.index(key), columns.index(target), latency_s) for (key, target), (_, latency_s) in found.items()]
    return Table(list(computations.values()), targets, bests)


def _is_held_out(line: Mapping[str, Any]) -> bool:
    return bool(line["held_out"]) or is_held_out(line["version_free_key"], None)


def _timed(line: Mapping[str, Any]) -> tuple[bool, float] | None:
    """Whether it has no full measurements, and seconds; None where it says nothing of the program's speed."""
    if line.get("invalid") is not None or line.get("disturbed") or not line["latencies_s"]:
        return None
    if line.get("cold_latencies_s"):
        return False, median(line["cold_latencies_s"])
    return (True, median(line["latencies_s"])) if line.get("quality") == "quick" else None


def _described(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A target's fields, of its attributes those that hardware tokens hold."""
    return {**spec, "attributes": {name: value for name, value in spec["attributes"].items() if name in UNITS}}


def _read(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            with NumberedLines(path) as lines:
                yield from (json.loads(text) for _, text in lines)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="collected by `crosstune dataset collect`")
    table = collected(sorted(parser.parse_args().folders))
    write(bests_file(), table)
    print(f"{len(table.bests)} latencies of {len(table.computations)} workloads on {len(table.targets)} targets")


if __name__ == "__main__":
    main()
