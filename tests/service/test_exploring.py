"""Which stored workload is measured next on a target that knows little."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import projects, records, schedules
from crosstune.service import expecting
from crosstune.service.steps.exploring import INFORMATIVE, RANDOM, choose

GRAPHS = ("conv", "pool", "dense", "softmax")


def measure(connection: Connection, make: Any, target: str, *graphs: str) -> None:
    for graph in graphs:
        records.store(
            connection,
            target_key=make.target(connection, target).key,
            workload_key=make.workload(connection, graph).key,
            project_key=projects.get(connection).key,
            candidates=[make.candidate(graph, make.full(0.1))],
        )


def key_of(connection: Connection, make: Any, graph: str) -> int:
    return int(make.workload(connection, graph).key)


def test_what_other_targets_measured_and_this_one_did_not_is_left_to_explore(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        measure(connection, make, "there", *GRAPHS)
        measure(connection, make, "here", "pool")
        here = make.target(connection)
        found = schedules.unmeasured(connection, here.key, projects.get(connection).key, 10)
        assert sorted(found) == sorted(key_of(connection, make, graph) for graph in GRAPHS if graph != "pool")
        assert len(schedules.unmeasured(connection, here.key, projects.get(connection).key, 2)) == 2


def test_the_workload_that_tells_most_of_the_others_is_next(
    engine: Engine, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(engine) as connection:
        measure(connection, make, "there", *GRAPHS)
        keys = {graph: key_of(connection, make, graph) for graph in GRAPHS}
        monkeypatch.setattr(expecting, "most_telling", lambda *_: keys["dense"])
        project_key, here = projects.get(connection).key, make.target(connection)
        chosen = {choose(connection, here, project_key, INFORMATIVE, Random(seed)) for seed in range(5)}
        assert chosen == {keys["dense"]}
        blind = {choose(connection, here, project_key, RANDOM, Random(seed)) for seed in range(40)}
        assert blind == set(keys.values())


def test_where_nothing_can_be_said_any_workload_is_next_and_at_last_none(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        measure(connection, make, "there", "conv", "pool")
        project_key, here = projects.get(connection).key, make.target(connection)
        assert choose(connection, here, project_key, INFORMATIVE, Random(0)) is not None
        measure(connection, make, "here", "conv", "pool")
        assert choose(connection, here, project_key, INFORMATIVE, Random(0)) is None
