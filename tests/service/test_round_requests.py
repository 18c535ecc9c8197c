"""What a round is told: its own records, and what other targets know of its workload."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import records, targets
from crosstune.service.steps.tuning import EVIDENCE_PER_TARGET, round_request
from crosstune.tuner.contracts import RoundRequest, TargetSpec

ME = 1
HERE, THERE = TargetSpec("llvm", "znver4", 2, "a processor"), TargetSpec("llvm", "znver3", 2, "another")


def register(connection: Connection, spec: TargetSpec) -> int:
    row, _ = targets.register(connection, identity=spec.identity, name=spec.mcpu, spec=spec.to_json())
    return row.key


def request(connection: Connection, make: Any, ranker: str = "attention") -> RoundRequest:
    return round_request(
        connection,
        target=HERE,
        target_key=register(connection, HERE),
        workload_key=make.workload(connection).key,
        project_key=ME,
        trials=8,
        seed=1,
        build_timeout_s=1.0,
        run_timeout_s=1.0,
        ranker=ranker,
    )


def store(connection: Connection, make: Any, spec: TargetSpec, *candidates: Any, graph: str = "conv") -> None:
    records.store(
        connection,
        target_key=register(connection, spec),
        workload_key=make.workload(connection, graph).key,
        project_key=ME,
        candidates=candidates,
    )


def test_a_round_is_told_how_schedules_did_on_other_targets_and_of_their_hardware(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store(connection, make, HERE, make.candidate("own", make.quick(0.1), make.full(0.2)))
        many = [make.candidate(f"{place}", make.quick(1.0 + place)) for place in range(2 * EVIDENCE_PER_TARGET)]
        store(connection, make, THERE, *many)
        store(connection, make, THERE, make.candidate("pooling", make.quick(0.1)), graph="pool")
        targets.add_facts(connection, register(connection, THERE), {"l2_bytes": 2**20}, "table")
        found = request(connection, make)
        (there,) = found.elsewhere
        assert there.target == THERE
        assert there.attributes == {"l2_bytes": 2**20}
        assert len(there.traces) == len(there.latencies_s) == EVIDENCE_PER_TARGET
        assert there.latencies_s[0] == 1.0 and sorted(there.latencies_s) == list(there.latencies_s)
        (own,) = found.known
        assert (own.latency_s, own.quick_s, own.order_s) == (0.2, 0.1, 0.1)


def test_the_ranker_is_the_one_that_was_asked_for(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        assert request(connection, make).ranker == "attention"
        assert request(connection, make, "xgboost").ranker == "xgboost"


def store_like(connection: Connection, make: Any, spec: TargetSpec, graph: str, sizes: list[int], *found: Any) -> None:
    """Measured programs of a workload of the same operators as "conv"."""
    records.store(
        connection,
        target_key=register(connection, spec),
        workload_key=make.workload(connection, graph, name="conv", sizes=sizes).key,
        project_key=ME,
        candidates=found,
    )


def names(found: RoundRequest) -> list[str]:
    return [trace[1][0] for trace in found.near]


def test_a_first_round_is_told_the_fastest_schedules_of_like_workloads_the_most_alike_first(
    engine: Engine, make: Any
) -> None:
    with transaction(engine) as connection:
        far = [make.candidate(name, make.quick(latency_s)) for name, latency_s in (("far", 0.1), ("far second", 0.2))]
        store_like(connection, make, HERE, "large", [1, 512], *far)
        near = [make.candidate(f"near {place}", make.quick(1.0 + place)) for place in range(4)]
        store_like(connection, make, HERE, "double", [1, 16], *reversed(near))
        store_like(connection, make, HERE, "other rank", [8], make.candidate("unlike", make.quick(0.1)))
        store(connection, make, HERE, make.candidate("pooling", make.quick(0.1)), graph="pool")
        store_like(connection, make, HERE, "half", [1, 4], make.candidate("broken", make.failure("compile")))
        assert names(request(connection, make)) == ["near 0", "near 1", "far", "far second"]


def test_schedules_of_like_workloads_come_from_other_targets_where_this_one_has_none(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store_like(connection, make, THERE, "double", [1, 16], make.candidate("there", make.quick(0.1)))
        assert names(request(connection, make)) == ["there"]
        store_like(connection, make, HERE, "double", [1, 16], make.candidate("here", make.quick(0.9)))
        assert names(request(connection, make)) == ["here", "there"]


def test_a_workload_with_records_of_its_own_is_told_of_no_like_ones(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store_like(connection, make, HERE, "double", [1, 16], make.candidate("like", make.quick(0.1)))
        store(connection, make, HERE, make.candidate("own", make.quick(0.1)))
        assert request(connection, make).near == ()
