"""Tolerances: rounding passes, a wrong schedule does not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crosstune.tuner.comparison import Comparison, compare_kernel, compare_outputs

GENERATOR = np.random.default_rng(5)


def product(size: int = 64, depth: int = 4096) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = GENERATOR.standard_normal((size, depth)).astype(np.float32)
    right = GENERATOR.standard_normal((depth, size)).astype(np.float32)
    return left, right, left @ right


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_a_sum_in_another_order_is_accepted() -> None:
    left, right, expected = product()
    order = GENERATOR.permutation(left.shape[1])
    found = left[:, order] @ right[order]
    assert not np.array_equal(found, expected)
    assert compare_kernel(found, expected, left.shape[1]).problem is None


def test_a_tile_that_skips_one_of_four_thousand_terms_is_refused() -> None:
    left, right, expected = product()
    found = left[:, :-1] @ right[:-1]
    assert compare_kernel(found, expected, left.shape[1]).problem is not None


def test_one_wrong_element_is_refused() -> None:
    _, _, expected = product()
    found = expected.copy()
    found[3, 4] = expected[4, 3]
    assert compare_kernel(found, expected, 4096).problem is not None


def test_an_element_that_was_never_written_is_refused() -> None:
    _, _, expected = product()
    found = expected.copy()
    found[0, 0] = np.nan
    assert "NaN" in str(compare_kernel(found, expected, 4096).problem)


def test_integers_must_be_equal() -> None:
    expected = np.arange(12)
    assert compare_kernel(expected.copy(), expected, 1).problem is None
    assert compare_kernel(expected + (expected == 3), expected, 1).problem is not None


def test_rounding_in_logits_passes_and_a_small_error_in_them_does_not() -> None:
    logits = [GENERATOR.standard_normal((1, 100)).astype(np.float32) for _ in range(3)]
    noisy = [each + np.float32(1e-6) * GENERATOR.standard_normal(each.shape).astype(np.float32) for each in logits]
    assert compare_outputs(noisy, logits).problem is None
    wrong = [each.copy() for each in logits]
    wrong[1][0, 7] += 0.01
    assert "standard deviations" in str(compare_outputs(wrong, logits).problem)


def test_probabilities_are_compared_as_logits() -> None:
    logits = [3.0 * GENERATOR.standard_normal((1, 1000)) for _ in range(2)]
    wrong = [each.copy() for each in logits]
    smallest = int(np.argmin(wrong[0]))
    wrong[0][0, smallest] += 0.1  # far below 1e-6 as a probability
    expected = [softmax(each).astype(np.float32) for each in logits]
    found = [softmax(each).astype(np.float32) for each in wrong]
    assert np.abs(found[0] - expected[0]).max() < 1e-6
    assert compare_outputs(expected, expected).problem is None
    assert compare_outputs(found, expected).problem is not None


@pytest.mark.parametrize("value", [0.0, 0.001, -7.0])
def test_an_output_that_is_constant_proves_nothing_and_is_refused(value: float) -> None:
    outputs = [np.full((1, 10), value, np.float32)] * 3
    assert "constant" in str(compare_outputs(outputs, outputs).problem)


def test_an_output_that_ignores_the_input_proves_nothing_and_is_refused() -> None:
    outputs = [np.arange(10, dtype=np.float32)] * 3
    assert "does not change" in str(compare_outputs(outputs, outputs).problem)


def test_equal_probabilities_prove_nothing_and_are_refused() -> None:
    outputs = [np.full((1, 1000), 0.001, np.float32)] * 3
    assert "constant" in str(compare_outputs(outputs, outputs).problem)


def test_nan_in_an_output_is_refused() -> None:
    outputs = [GENERATOR.standard_normal((1, 10)).astype(np.float32)]
    broken = [np.where(outputs[0] > 0, np.float32(np.nan), outputs[0])]
    assert "NaN" in str(compare_outputs(broken, outputs).problem)
    assert "reference" in str(compare_outputs(outputs, broken).problem)


def test_an_infinite_error_survives_strict_json() -> None:
    expected = [np.ones((1, 4), np.float32)]
    comparison = compare_outputs(expected, expected)
    text = json.dumps(comparison.to_json(), allow_nan=False)
    assert Comparison.from_json(json.loads(text)) == comparison
