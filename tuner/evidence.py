"""What a request says of targets, as the cost model sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosstune.cost_model.ranker import Elsewhere
from crosstune.tuner.contracts import MeasuredElsewhere, TargetSpec


def fields_of(target: TargetSpec, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {**target.to_json(), "attributes": attributes}


def elsewhere_of(one: MeasuredElsewhere) -> Elsewhere:
    return Elsewhere(fields_of(one.target, one.attributes), one.traces, one.latencies_s)
