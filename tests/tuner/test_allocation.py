from hypothesis import given
from hypothesis import strategies as st

from crosstune.tuner.allocation import TaskState, converged, network_estimate_s, next_task


def task(
    bests_s: tuple[float, ...] = (), weight: int = 1, flops: float = 1e8, exhausted: bool = False, busy: bool = False
) -> TaskState:
    return TaskState(weight, flops, 2e-3, bests_s, 5.0 * len(bests_s), exhausted, busy)


def test_every_task_gets_a_first_round_before_any_gets_a_second() -> None:
    tasks = [task((1e-2, 1e-3)), task(), task((5e-1,))]
    assert next_task(tasks) == 1


def test_the_task_with_more_time_to_save_comes_first() -> None:
    assert next_task([task((1e-3, 9e-4)), task((1e-3, 9e-4), weight=4)]) == 1


def test_exhausted_flat_and_busy_tasks_are_left_alone() -> None:
    flat = task((1e-6,) * 6)
    assert converged(flat, network_s=1e-3)
    assert next_task([flat, task((1e-3,), exhausted=True), task((1e-3,), busy=True)]) is None


def test_a_flat_task_that_is_most_of_the_network_is_not_given_up() -> None:
    heavy, light = task((4e-3,) * 8), task((1e-5,) * 8)
    assert not converged(heavy, network_s=5e-3)
    assert converged(light, network_s=5e-3)
    assert next_task([heavy, light]) == 0


def test_even_a_heavy_task_ends_after_enough_flat_rounds() -> None:
    assert converged(task((4e-3,) * 200), network_s=4e-3)


def test_a_task_at_the_roofline_promises_nothing() -> None:
    at_limit = task((1e-3, 1e-3), flops=2e8)
    above = task((1e-3, 1e-3), flops=1e7)
    assert next_task([at_limit, above], peak_flops_per_s=2e11) == 1


def test_the_network_estimate_needs_every_task() -> None:
    assert network_estimate_s([task((1e-3,), weight=3)]) == 3e-3
    unmeasured = TaskState(1, 1e6, None, (), 0.0, False)
    assert network_estimate_s([task((1e-3,)), unmeasured]) is None


@given(
    st.lists(
        st.builds(
            task,
            bests_s=st.lists(st.floats(1e-6, 1), max_size=8).map(lambda values: tuple(sorted(values, reverse=True))),
            weight=st.integers(1, 50),
            exhausted=st.booleans(),
            busy=st.booleans(),
        ),
        max_size=12,
    )
)
def test_the_choice_is_always_an_open_task_or_none_is_left(tasks: list[TaskState]) -> None:
    chosen = next_task(tasks)
    network_s = sum(one.weight * one.bests_s[-1] for one in tasks if one.bests_s)
    open_tasks = [i for i, one in enumerate(tasks) if not converged(one, network_s) and not one.busy]
    assert (chosen in open_tasks) if open_tasks else chosen is None
