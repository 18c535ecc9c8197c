"""Versions of the cost model: in training until their step ends, one champion, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import cost_models, steps
from crosstune.db.repositories.cost_models import NOTHING_YET, CostModelRow, CostModelStatus

NAME = "crosstune"
LEASE_S = 15.0


def in_training(connection: Connection) -> tuple[CostModelRow, str]:
    """A version, and the step that trains it."""
    model = cost_models.add(
        connection,
        name=NAME,
        data_fingerprint=NOTHING_YET,
        feature_layout=1,
        card={"request": {}},
        status=CostModelStatus.TRAINING,
    )
    step_id = steps.enqueue(
        connection,
        kind="retrain",
        queue="training",
        project_id="default",
        subject=model.id,
        input={"model_id": model.id},
    )
    return model, step_id


def candidate(connection: Connection, make: Any, number: int) -> CostModelRow:
    return cost_models.add(connection, name=NAME, data_fingerprint=make.sha(number), feature_layout=1, card={})


def test_a_version_in_training_is_the_one_that_runs_until_its_step_ends(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        assert cost_models.in_training(connection) is None
        model, _ = in_training(connection)
        running = cost_models.in_training(connection)
        assert running is not None and running.id == model.id
        cost_models.end(connection, model.id, CostModelStatus.FAILED, "too few records")
        assert cost_models.in_training(connection) is None
        assert cost_models.get(connection, model.id).card["failure"] == "too few records"
        cost_models.end(connection, model.id, CostModelStatus.CANCELLED, "too late")
        assert cost_models.get(connection, model.id).status == "failed"


def test_what_a_training_tells_is_kept_in_order(engine: Engine) -> None:
    with transaction(engine) as connection:
        model, _ = in_training(connection)
        cost_models.note_progress(connection, model.id, [{"phase": "read"}])
        cost_models.note_progress(connection, model.id, [{"phase": "pruned"}, {"phase": "epoch"}])
        card = cost_models.get(connection, model.id).card
    assert [line["phase"] for line in card["progress"]] == ["read", "pruned", "epoch"] and card["request"] == {}


def test_a_training_that_nobody_runs_is_cancelled_by_the_next_sweep(engine: Engine) -> None:
    with transaction(engine) as connection:
        model, step_id = in_training(connection)
        cost_models.ask_to_cancel(connection, model.id)
        assert steps.claim(connection, step_id, "a", LEASE_S) is None
        assert steps.runnable(connection, 10) == []
        steps.sweep(connection)
        assert steps.get(connection, step_id).state == "cancelled"
        assert cost_models.get(connection, model.id).status == "cancelled"


def test_a_running_training_hears_with_its_next_beat_that_it_is_to_stop(engine: Engine) -> None:
    with transaction(engine) as connection:
        model, step_id = in_training(connection)
        claim = steps.claim(connection, step_id, "a", LEASE_S)
        assert claim is not None
    with transaction(engine) as connection:
        beat = steps.beat(connection, "a", LEASE_S, [claim])
        assert (beat.held, beat.cancelled) == ({step_id}, frozenset())
        cost_models.ask_to_cancel(connection, model.id)
        steps.sweep(connection)
        assert steps.get(connection, step_id).state == "running", "its worker is alive and ends it"
        assert steps.beat(connection, "a", LEASE_S, [claim]).cancelled == {step_id}


def test_a_step_that_fails_for_good_takes_its_version_along(engine: Engine) -> None:
    with transaction(engine) as connection:
        model, step_id = in_training(connection)
        claim = steps.claim(connection, step_id, "a", LEASE_S)
        assert claim is not None
        steps.fail(connection, claim, "the disk is full")
        found = cost_models.get(connection, model.id)
    assert (found.status, found.card["failure"]) == ("failed", "the disk is full")


def test_rolling_back_returns_to_what_was_replaced_and_at_last_to_the_shipped_one(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        one, two = (candidate(connection, make, number) for number in range(2))
        assert cost_models.roll_back(connection, NAME) is None
        cost_models.promote(connection, one.id)
        cost_models.promote(connection, two.id)
        cost_models.promote(connection, two.id)  # once more changes nothing
        back = cost_models.roll_back(connection, NAME)
        assert back is not None and back.id == one.id
        assert cost_models.get(connection, two.id).status == "retired"
        assert cost_models.roll_back(connection, NAME) is None
        assert cost_models.champion(connection, NAME) is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=12))
def test_there_is_never_more_than_one_champion(engine: Engine, make: Any, moves: list[int | None]) -> None:
    """A number promotes that version, None rolls back."""
    with engine.connect() as connection, connection.begin() as everything:
        versions = [candidate(connection, make, number) for number in range(4)]
        for move in moves:
            if move is None:
                cost_models.roll_back(connection, NAME)
            else:
                cost_models.promote(connection, versions[move].id)
            states = [cost_models.get(connection, each.id).status for each in versions]
            assert states.count(CostModelStatus.CHAMPION) <= 1
            if move is not None:
                assert states[move] == CostModelStatus.CHAMPION
        for _ in versions:
            cost_models.roll_back(connection, NAME)
        assert cost_models.champion(connection, NAME) is None, "the shipped version is in use at last"
        everything.rollback()
