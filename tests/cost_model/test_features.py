"""Statement features: stored small, read back as they were, refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.cost_model.features import (
    FEATURE_LAYOUT,
    STATEMENT_COLUMNS,
    VECTOR_LENGTH,
    WrongLayout,
    layout_of,
    pack,
    unpack,
    vector,
)


def matrix(stores: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.uniform(0, 40, (stores, STATEMENT_COLUMNS)) * (random.random((stores, STATEMENT_COLUMNS)) < 0.3)
    return values.astype(np.float32)


@given(st.integers(0, 20), st.integers(0, 2**30))
def test_packing_keeps_features_to_half_precision(stores: int, seed: int) -> None:
    features = matrix(stores, seed)
    found = unpack(pack(features))
    assert found.shape == features.shape
    np.testing.assert_allclose(found, features, rtol=1e-3, atol=1e-6)


def test_packed_features_name_their_layout() -> None:
    assert layout_of(pack(matrix(2))) == FEATURE_LAYOUT


def test_packed_features_of_a_convolution_take_about_a_kilobyte() -> None:
    assert len(pack(matrix(4))) < 1500


@pytest.mark.parametrize(
    "packed",
    [b"", b"\x01", b"\x07" + pack(matrix(1))[1:], pack(matrix(2))[:-5], b"\x01\x00\x09" + pack(matrix(2))[3:]],
    ids=["empty", "one byte", "other layout", "cut", "wrong count"],
)
def test_damaged_features_are_refused(packed: bytes) -> None:
    with pytest.raises(WrongLayout):
        unpack(packed)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(WrongLayout):
        pack(np.zeros((2, 172), dtype=np.float32))


def test_a_vector_has_one_length_for_any_number_of_stores() -> None:
    for stores in (0, 1, 7):
        found = vector(matrix(stores))
        assert found.shape == (VECTOR_LENGTH,)
        assert np.isfinite(found).all()


def test_magnitudes_are_added_as_numbers() -> None:
    features = np.zeros((2, STATEMENT_COLUMNS), dtype=np.float32)
    features[:, 0] = np.log2(100 + 1)
    assert vector(features)[0] == pytest.approx(np.log2(200 + 1), rel=1e-5)
