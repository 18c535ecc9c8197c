"""The least time that a program can take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crosstune.cost_model.features import STATEMENT_COLUMNS, VECTOR_LENGTH, vector
from crosstune.cost_model.roofline import elements, roofline_s
from crosstune.cost_model.tokens.hardware import attribute, hardware_token
from crosstune.cost_model.tokens.workload import workload_token

RATES = {"peak_flops_per_s": 1e11, "memory_bytes_per_s": 1e10}
SHAPES = json.dumps(["matmul", [512, 512], [512, 512], [512, 512]])


def target(**attributes: float) -> str:
    return json.dumps({"kind": "llvm", "mcpu": "made-up", "cores": 2, "attributes": attributes})


def summary(multiply_adds: float) -> np.ndarray:
    features = np.zeros((1, STATEMENT_COLUMNS), dtype=np.float32)
    features[0, 0] = np.log2(multiply_adds + 1)
    return vector(features)[None]


def test_a_token_gives_back_the_attributes_that_it_holds() -> None:
    token = hardware_token(target(**RATES))
    assert attribute(token, "peak_flops_per_s") == pytest.approx(1e11, rel=1e-5)
    assert attribute(token, "l2_bytes") is None


def test_arithmetic_is_the_limit_where_there_is_much_of_it() -> None:
    found = roofline_s(hardware_token(target(**RATES)), workload_token("", SHAPES), summary(512**3))
    assert found == pytest.approx([2 * 512**3 / 1e11], rel=1e-3)


def test_memory_is_the_limit_where_there_is_little() -> None:
    workload = workload_token("", SHAPES)
    assert elements(workload) == pytest.approx(3 * 512 * 512, rel=1e-4)
    found = roofline_s(hardware_token(target(**RATES)), workload, summary(1000.0))
    assert found == pytest.approx([3 * 512 * 512 * 4 / 1e10], rel=1e-3)


def test_nothing_is_said_of_unknown_hardware_or_of_drafts() -> None:
    workload = workload_token("", SHAPES)
    assert np.isnan(roofline_s(hardware_token(target()), workload, summary(1000.0))).all()
    nothing = np.zeros((1, VECTOR_LENGTH), dtype=np.float32)
    assert np.isnan(roofline_s(hardware_token(target(**RATES)), workload, nothing)).all()
