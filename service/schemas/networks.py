"""Networks: uploaded, imported once, then ready or refused."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from crosstune.service.schemas.common import Failure, Out, Tensor, Time


class NetworkState(StrEnum):
    IMPORTING = "importing"
    READY = "ready"
    REFUSED = "refused"


class NetworkOut(Out):
    id: str
    name: str
    state: NetworkState
    content_sha256: str = Field(description="sha256 of the uploaded bytes.")
    size_bytes: int
    shapes: dict[str, list[int]] = Field(description="Sizes given for inputs at upload, by input name.")
    graph_key: str | None = Field(None, description="Operators, shapes and dtypes without weights; known once ready.")
    inputs: list[Tensor] = Field(description="Known once ready.")
    outputs: list[Tensor] = Field(description="Known once ready.")
    task_count: int = Field(description="Different workloads in the network; 0 until ready.")
    layout: str | None = Field(None, description="What the convolutions ended up with: NHWC, NCHW or mixed.")
    layout_note: str | None = Field(None, description="Why the layout is what it is.")
    synthetic_weights: bool | None = Field(
        None, description="True when large weights were missing and seeded random values stand for them."
    )
    pipeline_version: int | None = None
    failure: Failure | None = Field(None, description="Why it was refused.")
    created_at: Time


class WorkloadArgument(Out):
    dtype: str
    shape: list[int]


class TaskOut(Out):
    """A workload inside one network."""

    workload: str = Field(description="Identity of the workload (sha256).")
    name: str
    weight: int = Field(description="How often one inference calls it.")
    flops: float = Field(description="Floating-point operations of one call.")
    arguments: list[WorkloadArgument] = Field(description="Inputs, then outputs.")
    output_count: int


class NetworkTasks(Out):
    network: str
    state: NetworkState
    tasks: list[TaskOut]
