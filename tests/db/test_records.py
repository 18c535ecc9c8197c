"""Measurements in, verdicts and best schedules out."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, func, select

from crosstune.db.engine import reading, retrying, transaction
from crosstune.db.errors import NotFound
from crosstune.db.repositories import devices, listing, projects, records, schedules
from crosstune.db.repositories.records import Origin, Withdrawn
from crosstune.db.tables import Measurement

ME = 1
"""Key of the default project."""


def store(connection: Connection, make: Any, *candidates: Any, **more: Any) -> list[records.StoredRecord]:
    place = {
        "target_key": make.target(connection, more.pop("target", "here")).key,
        "workload_key": make.workload(connection, more.pop("graph", "conv"), more.pop("tvm", "0.27")).key,
    }
    return records.store(connection, **place, **{"project_key": ME, "candidates": candidates, **more})


def best_of(connection: Connection, make: Any, graph: str = "conv", project_key: int = ME) -> Any:
    key = make.workload(connection, graph).key
    return schedules.best(connection, make.target(connection).key, [key], project_key).get(key)


def test_a_batch_is_stored_and_judged(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        good, bad = store(
            connection,
            make,
            make.candidate("good", make.quick(0.2), make.full(0.3)),
            make.candidate("bad", make.failure("compile", detail="no such type")),
        )
        assert (good.verdict.latency_s, good.verdict.quality) == (0.3, "full")
        assert bad.verdict.permanent
        best = best_of(connection, make)
        assert (best.record_id, best.latency_s, best.trace) == (good.id, 0.3, [["trace"], ["good"]])
        row = listing.get(connection, bad.id, ME)
        assert (row.invalidity, row.status, row.measurement_count) == ("compile", "valid", 1)
        attempts = listing.measurements_of(connection, [good.key, bad.key])
        assert [one.quality for one in attempts[good.key]] == ["quick", "full"]
        assert attempts[bad.key][0].detail == "no such type"


def test_a_second_batch_of_a_known_schedule_joins_its_record(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        (first,) = store(connection, make, make.candidate("one", make.quick(0.2), features=b"f", feature_layout=1))
        (again,) = store(
            connection,
            make,
            make.candidate("one", make.full(0.4), features=b"f", feature_layout=1, source="transfer"),
        )
        assert again.id == first.id and again.verdict.latency_s == 0.4
        row = listing.get(connection, first.id, ME)
        assert (row.source, row.measurement_count) == ("search", 2)
        kept = select(func.count()).select_from(Measurement).where(Measurement.features.is_not(None))
        assert connection.execute(kept).scalar_one() == 1


def test_the_best_is_the_lowest_full_one_and_else_the_lowest_quick_one(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store(connection, make, *(make.candidate(f"quick {n}", make.quick(0.1 * n)) for n in (3, 1, 2)))
        assert best_of(connection, make).latency_s == pytest.approx(0.1)
        store(connection, make, *(make.candidate(f"full {n}", make.full(0.1 * n)) for n in (9, 8)))
        assert best_of(connection, make).latency_s == pytest.approx(0.8)
        store(connection, make, make.candidate("censored", records.NewMeasurement((0.01,), "censored")))
        store(connection, make, make.candidate("disturbed", make.full(0.01, status="disturbed")))
        store(connection, make, make.candidate("imported", make.full(0.01, status="imported"), source="import"))
        assert best_of(connection, make).latency_s == pytest.approx(0.8)


def test_one_query_answers_for_all_workloads_of_a_network(engine: Engine, make: Any) -> None:
    graphs = [f"graph {number}" for number in range(5)]
    with transaction(engine) as connection:
        for number, graph in enumerate(graphs[:4]):
            store(connection, make, make.candidate("one", make.full(1.0 + number)), graph=graph)
        keys = [make.workload(connection, graph).key for graph in graphs]
        found = schedules.best(connection, make.target(connection).key, keys, ME)
        assert [found[key].latency_s for key in keys[:4]] == [1.0, 2.0, 3.0, 4.0]
        assert keys[4] not in found
        assert schedules.best(connection, make.target(connection, "other").key, keys, ME) == {}


def test_the_best_schedule_query_reads_only_the_index_for_it(engine: Engine, make: Any) -> None:
    statements: list[tuple[str, Any]] = []
    with transaction(engine) as connection:
        for number in range(30):
            graph = f"graph {number}"
            store(connection, make, *(make.candidate(f"{n}", make.quick(0.1 * n)) for n in range(1, 30)), graph=graph)
        keys = [make.workload(connection, f"graph {number}").key for number in range(30)]
        target_key = make.target(connection).key
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE records")
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")

        def remember(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
            statements.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", remember)
        schedules.best(connection, target_key, keys, ME)
        schedules.transferred(connection, target_key, keys, ME)
        event.remove(engine, "before_cursor_execute", remember)
        assert len(statements) == 2, "each answers with one query"
        for statement, parameters in statements:
            explain = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
            plan = "\n".join(map(str, connection.exec_driver_sql(explain + statement, parameters)))
            assert plan.count("ix_records_best") == 2, plan
            assert "SCAN records" not in plan and "Seq Scan on records" not in plan, plan


def test_a_transfer_is_the_best_of_the_same_graph_elsewhere(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        wanted, target_key = make.workload(connection).key, make.target(connection).key
        assert schedules.transferred(connection, target_key, [wanted], ME) == {}
        store(connection, make, make.candidate("mine", make.full(0.5)))
        store(connection, make, make.candidate("other graph", make.full(0.1)), graph="pool", target="there")
        assert schedules.transferred(connection, target_key, [wanted], ME) == {}
        store(
            connection,
            make,
            *(make.candidate(name, make.full(latency_s)) for name, latency_s in (("slow", 0.9), ("fast", 0.7))),
            target="there",
        )
        found = schedules.transferred(connection, target_key, [wanted], ME)[wanted]
        assert (found.target_id, found.latency_s) == (make.target(connection, "there").id, 0.7)
        store(connection, make, make.candidate("old", make.full(0.8)), tvm="0.26", now=1.0)
        found = schedules.transferred(connection, target_key, [wanted], ME)[wanted]
        assert (found.tvm_version, found.latency_s, found.workload_key) == ("0.26", 0.8, wanted)
        seeds = schedules.seeds(connection, target_key, wanted, ME, per_pair=2, limit=9)
        assert [seed.trace[1] for seed in seeds] == [["old"], ["fast"], ["slow"]]
        assert len(schedules.seeds(connection, target_key, wanted, ME, per_pair=1, limit=9)) == 2


def test_a_round_is_told_of_every_schedule_that_was_tried(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store(
            connection,
            make,
            make.candidate("slow", make.quick(0.4), features=b"slow", feature_layout=1, module_sha256=make.sha("m")),
            make.candidate("fast", make.quick(0.2)),
            make.candidate("broken", make.failure("runtime")),
            make.candidate("unlucky", make.failure("timeout")),
        )
        key = (make.target(connection).key, make.workload(connection).key)
        fast, slow, *failures = schedules.known(connection, *key, feature_layout=1)
        assert (fast.latency_s, fast.features, fast.trace) == (0.2, None, [["trace"], ["fast"]])
        assert (slow.latency_s, slow.features, slow.module_sha256) == (0.4, b"slow", make.sha("m"))
        assert {one.invalidity: one.permanent for one in failures} == {"runtime": True, "timeout": False}
        assert schedules.known(connection, *key, feature_layout=2)[1].features is None
        for _ in range(2):
            store(connection, make, make.candidate("unlucky", make.failure("timeout")))
        assert all(one.permanent for one in schedules.known(connection, *key, feature_layout=1)[2:])


def test_examples_are_the_newest_programs_of_a_target_with_features(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        target_key = make.target(connection).key
        for number, graph in enumerate(("conv", "pool", "conv")):
            name = f"{number}"
            features = {"features": name.encode(), "feature_layout": 1}
            store(connection, make, make.candidate(name, make.quick(1.0 + number), **features), graph=graph)
        store(connection, make, make.candidate("plain", make.quick(0.1)))
        store(connection, make, make.candidate("unlucky", make.failure("timeout"), features=b"u", feature_layout=1))
        store(connection, make, make.candidate("broken", make.failure("compile"), features=b"b", feature_layout=1))
        found = schedules.examples(connection, target_key, feature_layout=1, limit=3)
        assert [(one.features, one.latency_s) for one in found] == [(b"b", None), (b"2", 3.0), (b"1", 2.0)]
        assert found[1].group == make.workload(connection, "conv").sha256
        assert schedules.examples(connection, target_key, feature_layout=2, limit=3) == []


def test_schedules_are_put_in_order_by_what_was_measured_alike(engine: Engine, make: Any) -> None:
    """A full measurement is slower than a quick one of the same program: cold weights."""
    with transaction(engine) as connection:
        layout = {"features": b"f", "feature_layout": 1}
        store(
            connection,
            make,
            make.candidate("contender", make.quick(0.2), make.full(0.5), **layout),
            make.candidate("plain", make.quick(0.25), make.quick(0.35), **layout),
            make.candidate("disturbed", make.quick(0.1, status="disturbed"), make.quick(0.4), **layout),
            make.candidate("broken", make.failure("compile"), **layout),
        )
        found = schedules.known(connection, *place(connection, make), feature_layout=1)
        assert {one.trace[1][0]: (one.latency_s, one.quick_s) for one in found} == {
            "contender": (0.5, 0.2),
            "plain": (pytest.approx(0.3), pytest.approx(0.3)),  # the mean of two
            "disturbed": (0.4, 0.4),
            "broken": (None, None),
        }
        examples = schedules.examples(connection, place(connection, make)[0], feature_layout=1, limit=9)
        assert sorted(one.latency_s or 0.0 for one in examples) == pytest.approx([0.0, 0.2, 0.3, 0.4])


def test_what_other_targets_measured_is_taken_evenly_from_fast_to_slow(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        for name in range(10):
            latencies = make.quick(1.0 + name), make.full(20.0 - name)
            store(connection, make, make.candidate(f"{name}", *latencies), target="there")
        store(connection, make, make.candidate("a", make.quick(0.1)), target="far")
        store(connection, make, make.candidate("b", make.failure("compile")), target="far")
        store(connection, make, make.candidate("own", make.quick(0.1)))
        store(connection, make, make.candidate("other", make.quick(0.1)), graph="pool", target="there")
        found = schedules.elsewhere(connection, *place(connection, make), ME, limit=4)
        by_target: dict[int, list[float]] = {}
        for one in found:
            by_target.setdefault(one.target_key, []).append(one.latency_s)
        there, far = (make.target(connection, name).key for name in ("there", "far"))
        assert by_target == {there: [1.0, 4.0, 7.0, 10.0], far: [0.1]}
        assert {tuple(one.trace[1]) for one in found if one.target_key == far} == {("a",)}


def test_the_default_of_a_workload_is_known_apart_from_its_best(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store(connection, make, make.candidate("default", make.quick(0.3), make.full(0.8), source="default"))
        store(connection, make, make.candidate("found", make.full(0.2)))
        keys = [make.workload(connection, graph).key for graph in ("conv", "pool")]
        assert schedules.defaults(connection, make.target(connection).key, keys) == {keys[0]: 0.8}


def test_best_latencies_are_those_asked_for_first_then_those_of_the_target(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        store(connection, make, make.candidate("a", make.full(3.0)), target="there", graph="other", now=1.0)
        store(
            connection, make, make.candidate("b", make.full(2.0), make.quick(1.0)), target="there", graph="old", now=2.0
        )
        store(connection, make, make.candidate("c", make.quick(0.5)), target="there", graph="old", now=3.0)
        store(connection, make, make.candidate("d", make.failure("compile")), graph="old", now=4.0)
        store(connection, make, make.candidate("e", make.quick(0.25)), graph="other", now=5.0)
        store(connection, make, make.candidate("f", make.quick(4.0)), graph="conv", tvm="0.26", target="there", now=0.0)
        keys = {name: make.workload(connection, name).key for name in ("conv", "old", "other")}
        keys["earlier conv"] = make.workload(connection, "conv", "0.26").key
        here, there = (make.target(connection, name).key for name in ("here", "there"))
        found = schedules.best_latencies(connection, ME, here, [keys["conv"]], 10)
        assert [(one.target_key, one.workload_key, one.latency_s) for one in found] == [
            (there, keys["earlier conv"], 4.0),
            (here, keys["other"], 0.25),
            (there, keys["old"], 2.0),
            (there, keys["other"], 3.0),
        ]
        assert schedules.best_latencies(connection, ME, here, [keys["conv"]], 2) == found[:2]


def test_a_withdrawn_record_is_no_longer_best_until_it_is_measured_again(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        (one,) = store(connection, make, make.candidate("one", make.full(0.2)))
        store(connection, make, make.candidate("two", make.full(0.3)))
        other = projects.create(connection, "other")
        assert records.withdraw(connection, [one.id], "not mine", other.key) == []
        assert records.withdraw(connection, [one.id, "rec_unknown"], "wrong clock", ME) == [one.id]
        assert best_of(connection, make).latency_s == 0.3
        shown = listing.list_page(connection, ME, 9, only=listing.RecordFilter(status="withdrawn"))
        assert [(record.id, record.withdrawn_reason) for record in shown] == [(one.id, "wrong clock")]
        assert len(schedules.known(connection, *place(connection, make), feature_layout=1)) == 1
        store(connection, make, make.candidate("one", make.full(0.25)))
        assert best_of(connection, make).latency_s == 0.25


def place(connection: Connection, make: Any) -> tuple[int, int]:
    return make.target(connection).key, make.workload(connection).key


def test_a_private_record_is_seen_by_its_project_only(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        other = projects.create(connection, "other")
        (mine,) = store(connection, make, make.candidate("mine", make.full(0.1)), visibility="project")
        store(connection, make, make.candidate("shared", make.full(0.2)))
        assert best_of(connection, make).latency_s == 0.1
        assert best_of(connection, make, project_key=other.key).latency_s == 0.2
        assert len(listing.list_page(connection, other.key, 9)) == 1
        with pytest.raises(NotFound):
            listing.get(connection, mine.id, other.key)
        store(connection, make, make.candidate("mine", make.full(0.1)), project_key=other.key)
        assert best_of(connection, make, project_key=other.key).latency_s == 0.1


def test_records_are_listed_by_page_and_filter(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        made = [store(connection, make, make.candidate(f"{n}", make.quick(1.0 + n)))[0].id for n in range(4)]
        (failed,) = store(connection, make, make.candidate("bad", make.failure("compile")), graph="pool")
        make.network(connection, "net", ["pool"])
        network_id = make.network(connection, "net").id
        first = listing.list_page(connection, ME, 2)
        second = listing.list_page(connection, ME, 9, before=first[-1].id)
        assert [row.id for row in (*first, *second)] == [failed.id, *made[::-1]]

        def ids(**only: Any) -> list[str]:
            return [row.id for row in listing.list_page(connection, ME, 9, only=listing.RecordFilter(**only))]

        assert ids(failed=True) == ids(network_id=network_id) == [failed.id]
        assert ids(measured=True) == ids(quality="quick") == made[::-1]
        assert ids(workload_key=make.workload(connection, "pool").key, source="import") == []
        assert ids(target_key=make.target(connection, "other").key) == []
        assert listing.count(connection) == {"valid": 5}


def test_every_record_is_streamed_once_as_lines_of_json(
    engine: Engine, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "BATCH", 3)
    with transaction(engine) as connection:
        store(connection, make, *(make.candidate(f"{n}", make.full(1.0 + n)) for n in range(7)))
    with reading(engine) as connection:
        lines = [json.loads(line) for line in listing.ndjson(connection, ME)]
    assert sorted(line["latency_s"] for line in lines) == [1.0 + n for n in range(7)]
    assert len({line["record"] for line in lines}) == 7
    assert lines[0]["trace"][0] == ["trace"] and len(lines[0]["measurements"][0]["latencies_s"]) == 3


def test_an_audit_draws_the_best_of_each_workload_first(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        for graph in ("conv", "pool", "relu"):
            store(connection, make, *(make.candidate(f"{n}", make.full(1.0 + n)) for n in range(3)), graph=graph)
            store(connection, make, make.candidate("quick", make.quick(0.1)), graph=graph)
        target_key = make.target(connection).key
        assert {one.latency_s for one in listing.audit_sample(connection, target_key, 3, seed=1)} == {1.0}
        five = listing.audit_sample(connection, target_key, 5, seed=1)
        assert sorted(one.latency_s for one in five) == [1.0, 1.0, 1.0, 2.0, 2.0]
        assert {one.record_id for one in listing.audit_sample(connection, target_key, 99, seed=2)} >= {
            one.record_id for one in five
        }


def test_measurements_stored_at_the_same_moment_are_all_judged(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        make.target(connection), make.workload(connection)

    def add(index: int) -> None:
        for turn in range(5):
            latency_s = 1.0 + index * 5 + turn
            candidates = [make.candidate(name, make.full(latency_s)) for name in ("one", "two")]
            retrying(engine, lambda c, given=candidates[:: 1 - 2 * (index % 2)]: store(c, make, *given))

    threads = [threading.Thread(target=add, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as connection:
        rows = listing.list_page(connection, ME, 9)
    assert [(row.latency_s, row.measurement_count) for row in rows] == [(10.5, 20)] * 2  # the median of 1 to 20


def test_what_a_device_measured_in_some_time_is_taken_back(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        bad, good = (devices.register(connection, name=name, kind="local", host=name).key for name in ("bad", "good"))
        store(
            connection,
            make,
            make.candidate("both", make.full(0.1, device_key=bad), make.full(0.3, device_key=good)),
            make.candidate("bad alone", make.full(0.2, device_key=bad)),
            now=100.0,
        )
        store(connection, make, make.candidate("later", make.full(0.25, device_key=bad)), now=500.0)
        found = records.withdraw_from(connection, Origin(device_key=bad, until=200.0), "a broken fan", 600.0)
        assert found == Withdrawn(measurements=2, records=2, first_measured_at=100.0)
        rows = {row.schedule_sha256: row for row in listing.list_page(connection, ME, 9)}
        assert rows[make.sha("schedule", "both")].latency_s == 0.3
        assert best_of(connection, make).latency_s == 0.25
        (gone,) = listing.list_page(connection, ME, 9, only=listing.RecordFilter(status="withdrawn"))
        assert (gone.schedule_sha256, gone.withdrawn_reason) == (make.sha("schedule", "bad alone"), "a broken fan")
        assert records.withdraw_from(connection, Origin(device_key=bad, until=200.0), "again") == Withdrawn(0, 0, None)
