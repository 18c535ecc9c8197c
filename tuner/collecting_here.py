"""A collection on this machine, from file names to measured programs; see `collecting`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crosstune.cost_model.formats.collected import CollectionFolder
from crosstune.tuner.builder import Builder
from crosstune.tuner.child import Template
from crosstune.tuner.collecting import PASSES, CollectedWorkload, Collector, Progress, distinct_workloads
from crosstune.tuner.contracts import ImportedNetwork, NetworkRefused, TargetRefused, TargetSpec
from crosstune.tuner.rounds import RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import CPU_KIND, Machine, calibrate, can_measure, detect_machine, validate, variants
from crosstune.tuner.tasks import import_network

IMPORT_S = 300.0
BUILD_S, RUN_S = 10.0, 10.0
PATIENCE = 0.5
"""A collection has time; see `Runner`."""


def collect_here(
    folder: Path,
    networks: Sequence[Path],
    targets: Sequence[str],
    programs: int,
    minutes: float | None,
    seed: int,
    held_out: bool,
    shapes: dict[str, list[int]],
    tell: Callable[[Progress], None],
    note: Callable[[str], None],
) -> None:
    """Collect programs of the `networks` (ONNX files) on `targets` ("mcpu:cores"; none: all that this machine can).

    `held_out` takes the workloads of the held-out networks only, else all but these. `shapes`: sizes of inputs that
    the files leave open, which all of them must have. Stops after `minutes`. A network that cannot be imported is noted
    and left out. Raises TargetRefused.
    """
    until_s = time.monotonic() + 60.0 * minutes if minutes is not None else float("inf")
    with Template.start() as template:
        machine = detect_machine(template)
        specs = [parse_short(text, machine, template) for text in targets] or variants(machine)
        found = _workloads(template, networks, shapes, seed, note)
        wanted = [one for one in found if one.held_out == held_out]
        note(f"{len(wanted)} workloads on {len(specs)} targets; {len(found) - len(wanted)} left out")
        collection = CollectionFolder(folder)
        for spec in specs:
            if spec.identity not in collection.targets:
                collection.add_target(
                    spec.identity, {**spec.to_json(), "attributes": attributes(template, machine, spec)}
                )
        builder, runner = Builder(template, machine.cores, BUILD_S), Runner(template, RUN_S, patience=PATIENCE)
        rounds = RoundRunner(Searcher(template), builder, runner, PASSES)
        try:
            collector = Collector(collection, rounds, builder, runner, programs, seed, tell)
            collector.collect(wanted, specs, lambda: time.monotonic() > until_s)
        finally:
            rounds.close()


def attributes(template: Template, machine: Machine, spec: TargetSpec) -> dict[str, float | str]:
    """What this machine tells of itself and reaches under a target: the numbers that models see."""
    found = {**machine.attributes, **calibrate(template, spec, machine), "cores": None}
    return {name: each.value for name, each in found.items() if each is not None}


def parse_short(text: str, machine: Machine, template: Template) -> TargetSpec:
    """`znver3:2` as a target of this machine; TargetRefused says what is wrong with it."""
    mcpu, _, cores = text.partition(":")
    if not cores.isdecimal():
        raise TargetRefused(f"{text!r} is no target: give MCPU:CORES, such as {machine.mcpu}:{machine.cores}")
    mattr = machine.mattr if mcpu == machine.mcpu else ()
    spec = TargetSpec(CPU_KIND, mcpu, int(cores), machine.model, mattr, machine.triple)
    validate(spec, template)
    if (reason := can_measure(spec, machine)) is not None:
        raise TargetRefused(f"{text}: {reason}")
    return spec


def _workloads(
    template: Template, paths: Sequence[Path], shapes: dict[str, list[int]], seed: int, note: Callable[[str], None]
) -> list[CollectedWorkload]:
    networks: dict[str, ImportedNetwork] = {}
    for path in paths:
        try:
            with template.spawn("import") as child:
                networks[path.stem] = import_network(child, path, shapes, IMPORT_S)
        except NetworkRefused as error:
            note(f"{path} is left out: {error}")
    return distinct_workloads(networks, seed)
