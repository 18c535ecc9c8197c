"""Networks, targets, workloads, builds, artifacts, keys, labels, audit, cost models and projects."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from crosstune.db.engine import reading, retrying, transaction
from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress, NameTaken, NotFound
from crosstune.db.ids import Prefix, has_prefix, new_id, uuid7
from crosstune.db.repositories import (
    artifacts,
    audit,
    builds,
    cost_models,
    idempotency,
    labels,
    networks,
    projects,
    targets,
    workloads,
)


def test_ids_say_what_they_name_and_sort_by_age() -> None:
    made = [new_id(Prefix.JOB) for _ in range(5000)]
    assert made == sorted(made) and len(set(made)) == 5000
    assert has_prefix(made[0], Prefix.JOB) and not has_prefix(made[0], Prefix.STEP)
    assert uuid7().version == 7 and uuid7().variant == "specified in RFC 4122"
    for wrong in ("job_", "job_x", made[0].upper(), made[0] + "0", "'; DROP TABLE jobs; --", ""):
        assert not has_prefix(wrong, Prefix.JOB)


def submit(connection: Connection, make: Any, name: str, content: str, **shapes: Any) -> tuple[Any, bool]:
    return networks.submit(
        connection,
        project_id="default",
        name=name,
        content_sha256=make.sha(content),
        shapes=shapes,
        size_bytes=5,
        artifact_id=None,
    )


def test_a_network_is_known_by_its_bytes_and_shapes_and_not_by_its_name(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        first, new = submit(connection, make, "a", "bytes")
        assert new and first.state == "importing"
        assert submit(connection, make, "b", "bytes") == (first, False)
        other, new = submit(connection, make, "b", "bytes", data=[1, 3])
        assert new and other.id != first.id and other.shapes == {"data": [1, 3]}
        with pytest.raises(NameTaken, match=first.id):
            submit(connection, make, "a", "other bytes")


def test_an_import_ends_ready_with_tasks_or_refused_with_a_reason(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        ready = make.network(connection, "net", ["conv", "pool"])
        assert (ready.state, ready.layout, ready.graph_key) == ("ready", "NHWC", make.sha("graph of", "net"))
        tasks = networks.tasks_of(connection, ready.id)
        assert [(task.position, task.weight, task.workload.name) for task in tasks] == [(0, 2, "conv"), (1, 2, "pool")]
        refused, _ = submit(connection, make, "bad", "bad")
        networks.refuse(connection, refused.id, "unsupported-operator", "NonMaxSuppression", {"operator": "N"})
        refused = networks.get(connection, refused.id)
        assert refused.state == "refused" and refused.refusal["facts"] == {"operator": "N"}
        assert networks.task_counts(connection, [ready.id, refused.id]) == {ready.id: 2}
        assert [one.id for one in networks.list_page(connection, "default", 9, state="refused")] == [refused.id]
        page = networks.list_page(connection, "default", 1)
        assert [one.id for one in networks.list_page(connection, "default", 9, before=page[0].id)] == [ready.id]


def test_a_deleted_network_is_gone_and_its_bytes_may_be_sent_again(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        stored = artifacts.add(
            connection, project_id="default", sha256=make.sha("x"), kind="network", size_bytes=1, uri="file:x"
        )
        network, _ = networks.submit(
            connection,
            project_id="default",
            name="a",
            content_sha256=make.sha("x"),
            shapes={},
            size_bytes=1,
            artifact_id=stored.id,
        )
        assert networks.delete(connection, network.id, "default") == stored.id
        assert artifacts.remove(connection, stored.id)
        with pytest.raises(NotFound):
            networks.get(connection, network.id, "default")
        assert networks.get(connection, network.id).deleted_at is not None
        again, new = submit(connection, make, "a", "x")
        assert new and again.id != network.id


def test_a_target_is_known_by_its_identity(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        one, new = targets.register(connection, identity=make.sha("t"), name="one", spec={"mcpu": "znver4"})
        assert new
        assert targets.register(connection, identity=make.sha("t"), name="other", spec={}) == (one, False)
        with pytest.raises(NameTaken):
            targets.register(connection, identity=make.sha("u"), name="one", spec={})
        assert targets.get(connection, "one") == targets.get(connection, one.id) == one
        assert targets.get_by_key(connection, one.key).spec == {"mcpu": "znver4"}
        assert [target.id for target in targets.list_page(connection, 9)] == [one.id]
        assert list(targets.all_keys(connection)) == [one.key]
        with pytest.raises(NotFound):
            targets.get(connection, "nothing")


def test_hardware_facts_keep_their_origin_and_get_new_versions(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        key = make.target(connection).key
        targets.add_facts(connection, key, {"l3_bytes": 32, "cores": 2}, "detected")
        targets.add_facts(connection, key, {"l3_bytes": 32}, "detected")
        targets.add_facts(connection, key, {"cores": 4, "peak": 1.5}, "calibrated")
        found = [(one.attribute, one.value, one.origin, one.version) for one in targets.facts_of(connection, key)]
    assert found == [("cores", 4, "calibrated", 2), ("l3_bytes", 32, "detected", 1), ("peak", 1.5, "calibrated", 1)]


def test_a_workload_is_stored_once_for_everybody(engine: Engine, make: Any) -> None:
    keys = []

    def add() -> None:
        keys.append(retrying(engine, lambda connection: make.workload(connection, "shared").key))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 4 and len(set(keys)) == 1
    with reading(engine) as connection:
        row = workloads.get_by_key(connection, keys[0])
        assert workloads.get(connection, row.id) == workloads.get(connection, row.sha256) == row
        assert workloads.module_of(connection, row.key) == '{"module": "shared"}'
        for missing in (lambda: workloads.get(connection, "wkl_no"), lambda: workloads.module_of(connection, 999_999)):
            with pytest.raises(NotFound):
                missing()


def test_a_finished_build_never_changes(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        build = builds.create(
            connection,
            project_id="default",
            network_id=make.network(connection).id,
            target_key=make.target(connection).key,
            schedules=[],
        )
        builds.pin(connection, build.id, [{"workload": "w"}])
        outcome = {
            "manifest": {"m": 1},
            "tvm_version": "0.27",
            "artifact_id": None,
            "tuned_latency_s": 0.1,
            "untuned_latency_s": 0.3,
            "reference_latency_s": 0.2,
            "largest_error": 1e-6,
        }
        ready = builds.finish(connection, build.id, **outcome)
        assert (ready.state, ready.schedules, ready.tuned_latency_s) == ("ready", [{"workload": "w"}], 0.1)
        for change in (
            lambda: builds.finish(connection, build.id, **outcome),
            lambda: builds.fail(connection, build.id, "late"),
            lambda: builds.pin(connection, build.id, []),
        ):
            with pytest.raises(NotFound):
                change()
        assert builds.get(connection, build.id, "default") == ready
        assert builds.list_page(connection, "default", 9, network_id=ready.network_id, target_key=ready.target_key)


def test_bytes_are_deleted_with_the_last_artifact_that_names_them(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        one, two = (
            artifacts.add(
                connection,
                project_id="default",
                sha256=make.sha("bytes"),
                kind="network",
                size_bytes=3,
                uri="file:same",
                expires_at=100.0 + number,
            )
            for number in range(2)
        )
        artifacts.set_owner(connection, two.id, "net_x")
        assert artifacts.find(connection, "default", make.sha("bytes"), "network") == one
        assert artifacts.find(connection, "default", make.sha("bytes"), "build") is None
        assert [expired.id for expired in artifacts.expired(connection, 9, now=100.5)] == [one.id]
        assert not artifacts.remove(connection, one.id)
        assert artifacts.get(connection, two.id).owner == "net_x"
        assert artifacts.remove(connection, two.id)
        with pytest.raises(NotFound):
            artifacts.get(connection, two.id)


def test_a_repeated_request_gets_the_first_answer(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        body, other = make.sha("body"), make.sha("other")
        assert idempotency.begin(connection, "default", "k", body, now=100) is None
        with pytest.raises(IdempotencyInProgress):
            idempotency.begin(connection, "default", "k", body, now=101)
        idempotency.complete(connection, "default", "k", 201, {"id": "job_x"}, now=102)
        stored = idempotency.begin(connection, "default", "k", body, now=103)
        assert stored == idempotency.StoredAnswer(201, {"id": "job_x"})
        with pytest.raises(IdempotencyConflict):
            idempotency.begin(connection, "default", "k", other, now=104)
        assert idempotency.begin(connection, "default", "k", other, now=102 + idempotency.KEEP_S) is None
        idempotency.forget(connection, "default", "k")
        assert idempotency.begin(connection, "default", "k", body, now=103 + idempotency.KEEP_S) is None
        assert idempotency.prune(connection, now=1e9) == 1


def test_a_request_that_died_blocks_its_key_for_a_minute_only(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        idempotency.begin(connection, "default", "k", make.sha("b"), now=100)
        assert idempotency.begin(connection, "default", "k", make.sha("b"), now=161) is None


def test_of_equal_requests_at_the_same_moment_one_does_the_work(engine: Engine, make: Any) -> None:
    done: list[str] = []
    answers: list[Any] = []

    def request() -> None:
        def work(connection: Connection) -> Any:
            stored = idempotency.begin(connection, "default", "k", make.sha("b"))
            if stored is None:
                labels.replace(connection, "default", "job_x", {"made": "once"})
                idempotency.complete(connection, "default", "k", 201, "made")
                done.append("work")
                return "made"
            return stored.answer

        answers.append(retrying(engine, work))

    threads = [threading.Thread(target=request) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["work"] and answers == ["made"] * 5


def test_labels_find_resources(engine: Engine) -> None:
    with transaction(engine) as connection:
        labels.replace(connection, "default", "job_a", {"team": "vision", "stage": "test"})
        labels.replace(connection, "default", "job_b", {"team": "speech"})
        assert labels.of(connection, "default", "job_a") == {"stage": "test", "team": "vision"}
        assert labels.find(connection, "default", "team") == ["job_a", "job_b"]
        assert labels.find(connection, "default", "team", "speech") == ["job_b"]
        labels.replace(connection, "default", "job_a", {})
        assert labels.of(connection, "default", "job_a") == {}


def test_the_audit_list_keeps_who_did_what(engine: Engine) -> None:
    with transaction(engine) as connection:
        for number in range(3):
            audit.write(
                connection,
                project_id="default",
                principal="local",
                action="withdraw",
                resource=f"rec_{number}",
                detail={"n": number},
            )
        first = audit.list_page(connection, "default", 2)
        assert [row.resource for row in first] == ["rec_2", "rec_1"]
        assert [row.detail for row in audit.list_page(connection, "default", 2, before=first[-1].key)] == [{"n": 0}]
        assert len(audit.list_page(connection, "default", 9, resource="rec_1")) == 1


def test_one_version_of_a_cost_model_is_champion(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        assert cost_models.champion(connection, "ranker") is None
        one, two = (
            cost_models.add(connection, name="ranker", data_fingerprint=make.sha(n), feature_layout=1, card={"n": n})
            for n in range(2)
        )
        assert (one.version, two.version, two.status) == (1, 2, "candidate")
        cost_models.promote(connection, one.id)
        assert cost_models.promote(connection, two.id).status == "champion"
        champion = cost_models.champion(connection, "ranker")
        assert champion is not None and champion.id == two.id
        assert [model.status for model in cost_models.list_page(connection, 9)] == ["champion", "retired"]


def test_an_api_key_opens_its_project_until_it_expires_or_is_revoked(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        project = projects.create(connection, "team")
        assert not projects.has_api_keys(connection)
        key_id = projects.add_api_key(connection, project.id, "ci", make.sha("secret"), ["jobs"], expires_at=200.0)
        found = projects.find_api_key(connection, make.sha("secret"), now=100)
        assert found is not None and (found.project_id, found.scopes) == (project.id, ("jobs",))
        assert projects.find_api_key(connection, make.sha("guess"), now=100) is None
        assert projects.find_api_key(connection, make.sha("secret"), now=200) is None
        assert projects.has_api_keys(connection)
        projects.revoke_api_key(connection, key_id)
        assert projects.find_api_key(connection, make.sha("secret"), now=100) is None
        assert not projects.has_api_keys(connection)
        with pytest.raises(NotFound):
            projects.get(connection, "prj_unknown")
