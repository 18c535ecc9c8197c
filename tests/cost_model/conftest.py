"""Programs whose speed is known, for tests of models: it depends on decisions, and a little on the target."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crosstune.cost_model.features import STATEMENT_COLUMNS
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.tokens.hardware import hardware_token
from crosstune.cost_model.tokens.schedule import ScheduleTokens, tokens
from crosstune.cost_model.tokens.vocabulary import Kind, Step
from crosstune.cost_model.tokens.workload import workload_token

TARGETS = [
    json.dumps({"cores": cores, "kind": "llvm", "mcpu": mcpu}) for mcpu in ("znver3", "x86-64-v2") for cores in (2, 1)
]


def _schedule(chance: np.random.Generator) -> ScheduleTokens:
    """Two splits and a vectorised loop; every number is a decision."""
    drawn = chance.integers(0, 7, size=5).astype(float)
    steps = [
        Step(Kind.SPLIT, 1, (6.0, *drawn[:2])),
        Step(Kind.SPLIT, 1, (6.0, *drawn[2:4])),
        Step(Kind.VECTORIZE, 1, (drawn[4],)),
    ]
    return tokens(steps)


def make_groups(workloads: int, programs: int, seed: int = 0, targets: int = 3) -> list[Group]:
    """Each workload's programs on each of the first `targets`."""
    chance = np.random.default_rng(seed)
    groups = []
    for workload in range(workloads):
        made = [_schedule(chance) for _ in range(programs)]
        for number, target in enumerate(TARGETS[:targets]):
            found = []
            for index, one in enumerate(made):
                statements = np.abs(chance.normal(size=(2, STATEMENT_COLUMNS))).astype(np.float32)
                speed = one.values[0, 1] - 0.5 * one.values[1, 2] + 0.3 * number * one.values[2, 0]
                statements[:, 3] = 6.0 + speed
                latency_s = 1e-3 * float(2.0 ** (-0.3 * speed) * (1 + workload))
                found.append(Program(f"{workload}.{index}", one, statements, latency_s))
            shape = workload_token("", json.dumps(["conv", [1, 8 * (1 + workload), 16]]))
            groups.append(Group("made", "", target, f"w{workload}", hardware_token(target), shape, False, found))
    return groups


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    """Eight workloads, 24 programs each, on three targets."""
    return make_groups(8, 24)
