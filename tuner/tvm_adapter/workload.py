"""Workloads: canonical tensor programs and their identity."""

from __future__ import annotations

import re
from typing import Any

import tvm

from crosstune.tuner.contracts import Workload, sha256_json
from crosstune.tuner.tvm_adapter.canonical import canonical_json, load
from crosstune.tuner.tvm_adapter.compute import computation
from crosstune.tuner.tvm_adapter.graph import PIPELINE_VERSION
from crosstune.tuner.tvm_adapter.preload import TVM_VERSION

LONGEST_NAME = 60
MEANINGLESS = frozenset(["fused", "tir", "te", ""])


def workload_of(function: Any, global_name: str = "") -> Workload:
    """The workload of a PrimFunc of a fused module; `global_name` only makes a readable name."""
    text = canonical_json(function)
    facts = computation(text)
    return Workload(
        sha256=sha256_json([text, TVM_VERSION]),
        version_free_key=facts.version_free_key,
        name=readable_name(global_name),
        module=text,
        flops=facts.flops,
        args=facts.args,
        output_count=facts.output_count,
        tvm_version=TVM_VERSION,
        pipeline_version=PIPELINE_VERSION,
    )


def readable_name(global_name: str) -> str:
    """`fused_conv2d1_add2_relu` -> `conv2d_add_relu`."""
    words = [re.sub(r"(?<=\D)\d+$", "", _without_counter(word)) for word in global_name.split("_")]
    return "_".join(word for word in words if word not in MEANINGLESS)[:LONGEST_NAME] or "workload"


def _without_counter(word: str) -> str:
    """Drop the number that tells equal functions apart, not the one that belongs to the name (conv2d, resize2d)."""
    dimensional = re.fullmatch(r"(.*?\dd)\d*", word)
    return dimensional.group(1) + "d" if dimensional and not dimensional.group(1).endswith("d") else word


def load_module(workload: Workload) -> tvm.ir.IRModule:
    """The IRModule that is tuned: one PrimFunc named `main`."""
    return load(workload.module)
