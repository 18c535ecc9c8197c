"""Is a compiled result right? Numbers against numbers, with tolerances that a wrong schedule cannot slip under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

NETWORK_TOLERANCE = {"float64": 1e-3, "float32": 1e-3, "float16": 5e-2}
"""Largest error of a network's output, in standard deviations of that output. Reordered sums give 1e-6 to 1e-4 in
float32; a wrong tile or axis gives 0.1 and more."""
ROUNDING_STEPS = 64
"""Further rounding steps of the output's own value: an output may be large beside its deviation."""
LARGEST_KERNEL_TOLERANCE = 0.1
CONSTANT_SHARE = 1e-9
"""Deviation below this share of the magnitude: every element is the same and no error would show."""
SMALLEST_PROBABILITY = 1e-30


@dataclass(frozen=True, slots=True)
class Comparison:
    """`largest_relative` is in units of `scale`: the expected values' root mean square for a kernel, their standard
    deviation for a network's output. `problem` is None when all is well."""

    largest_absolute: float
    largest_relative: float
    tolerance: float
    scale: float
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Infinite errors as null: JSON has no infinity, and PostgreSQL refuses one."""
        return {key: None if value == float("inf") else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Comparison:
        infinite = {key: float("inf") for key in ("largest_absolute", "largest_relative") if value[key] is None}
        return cls(**(value | infinite))


def kernel_tolerance(dtype: str, reduction_length: int) -> float:
    """Relative to the output's root mean square: rounding errors of a sum in another order grow with its root."""
    if not dtype.startswith("float"):
        return 0.0
    steps = 16.0 + 4.0 * float(max(1, reduction_length)) ** 0.5
    return float(min(LARGEST_KERNEL_TOLERANCE, float(np.finfo(dtype).eps) * steps))


def compare_kernel(found: Array, expected: Array, reduction_length: int) -> Comparison:
    """A scheduled kernel's output against its unscheduled form's, on the same inputs.

    NaN and infinities must stand in the same places; integers must be equal.
    """
    tolerance = kernel_tolerance(found.dtype.name, reduction_length)
    regular = np.isfinite(expected)
    if not np.array_equal(found[~regular], expected[~regular], equal_nan=found.dtype.kind == "f"):
        return Comparison(float("inf"), float("inf"), tolerance, 0.0, "NaN or infinite where the reference is not")
    wanted, got = expected[regular].astype(np.float64), found[regular].astype(np.float64)
    if not np.isfinite(got).all():
        return Comparison(float("inf"), float("inf"), tolerance, 0.0, "NaN or infinite where the reference is not")
    if not wanted.size:
        return Comparison(0.0, 0.0, tolerance, 0.0, None)
    error = np.abs(got - wanted)
    scale = float(np.sqrt(np.mean(wanted**2)))
    relative = float(np.max(error / (scale + np.abs(wanted) + np.finfo(np.float64).tiny)))
    problem = f"differs by {relative:.2g} of its magnitude" if relative > tolerance else None
    return Comparison(float(error.max()), relative, tolerance, scale, problem)


def compare_outputs(found: Sequence[Array], expected: Sequence[Array]) -> Comparison:
    """One output of a network over several random inputs, against the reference's.

    Probabilities are compared as logarithms (the logits up to a constant), since a softmax squeezes errors together.
    An output whose values are all equal is a problem too: no wrong schedule would ever show in it.
    """
    wanted, got = np.stack(expected), np.stack(found)
    dtype = got.dtype.name
    if got.shape != wanted.shape:
        return _failed(f"has shape {got.shape[1:]}, expected {wanted.shape[1:]}")
    if got.dtype.kind != "f":
        differing = float(np.mean(got != wanted)) if wanted.size else 0.0
        problem = f"{differing:.2%} of the integers differ" if differing else None
        return Comparison(differing, differing, 0.0, 1.0, problem)
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    if not np.isfinite(wanted).all():
        return _failed("is NaN or infinite in the reference already: nothing can be verified")
    if not np.isfinite(got).all():
        return _failed("is NaN or infinite")
    if is_probability(wanted):
        large = (wanted > SMALLEST_PROBABILITY) & (got > SMALLEST_PROBABILITY)
        if np.abs(got - wanted)[~large].max(initial=0.0) > 1e3 * SMALLEST_PROBABILITY:
            return _failed("has a probability of zero where the reference has none")
        wanted, got = np.log(wanted[large]), np.log(got[large])
    error, deviation = np.abs(got - wanted), float(np.std(wanted))
    magnitude = float(np.max(np.abs(wanted), initial=0.0))
    tolerance = NETWORK_TOLERANCE[dtype]
    if min(deviation, _widest(expected)) <= CONSTANT_SHARE * magnitude:
        return _failed("is constant: all its values are equal, so that no error would show")
    if len(expected) > 1 and not any(np.any(each != expected[0]) for each in expected[1:]):
        return _failed("does not change with the input, so that no error would show")
    rounding = ROUNDING_STEPS * float(np.finfo(dtype).eps) * np.abs(wanted)
    relative = float(np.max(error / deviation))
    excess = float(np.max((error - rounding) / deviation))
    problem = f"differs by {relative:.2g} standard deviations" if excess > tolerance else None
    return Comparison(float(error.max()), relative, tolerance, deviation, problem)


def _widest(outputs: Sequence[Array]) -> float:
    """The largest deviation within one output; a single number has none and is judged over the inputs alone."""
    return max(float(np.std(each.astype(np.float64))) if each.size > 1 else np.inf for each in outputs)


def is_probability(values: Array) -> bool:
    """True when the values of an output look like a softmax over one of its axes (the first is the input's number)."""
    if values.min(initial=0.0) < 0.0 or values.max(initial=0.0) > 1.0 + 1e-6:
        return False
    axes = [axis for axis in range(1, values.ndim) if values.shape[axis] > 1]
    return any(np.allclose(values.sum(axis=axis), 1.0, atol=1e-3) for axis in axes)


def _failed(problem: str) -> Comparison:
    return Comparison(float("inf"), float("inf"), 0.0, 0.0, problem)
