"""Train the attention model on groups; seeded, and stopped early by the validation groups' top-1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crosstune.cost_model.attention.batches import Batch, group_batch
from crosstune.cost_model.attention.losses import LOSSES
from crosstune.cost_model.attention.model import AttentionModel, Shape, tensors_of
from crosstune.cost_model.baselines.segment_sum import SegmentSum
from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.groups import Group, by_workload
from crosstune.cost_model.metrics import top_k
from crosstune.cost_model.ranker import Scores

WARM_UP = 0.2
SMALLEST_SPREAD = 0.05
"""A feature that hardly ever changes in training must not explode where it does."""


class NothingToLearn(CostModelError):
    """No group has two programs of different speed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train; all of it is written into the model's card."""

    seed: int = 0
    epochs: int = 30
    patience: int = 6
    """Epochs without a better validation before it ends."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    group_size: int = 48
    """Programs of a group in one step, drawn anew each time."""
    groups_per_step: int = 4
    loss: str = "lambda_rank"
    drop: dict[str, float] = field(
        default_factory=lambda: {
            "hardware": 0.1,
            "workload": 0.1,
            "statements": 0.15,
            "schedule": 0.15,
            "evidence": 0.35,
        }
    )
    """Probability that a token group is left out of a step, so that the model works without it."""
    always_masked: tuple[str, ...] = ()
    model: str = "attention"
    """A name in MODELS."""
    shape: Shape = field(default_factory=Shape)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


MODELS: Mapping[str, Callable[[Shape], nn.Module]] = {
    "attention": AttentionModel,
    "segment_sum": lambda _: SegmentSum(),
}


@dataclass(slots=True)
class Prepared:
    """A group's arrays, made once."""

    group: Group
    batch: Batch
    labels: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trained:
    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


def prepare(groups: Sequence[Group], evidence_from: Sequence[Group]) -> list[Prepared]:
    """Batches with evidence from those of `evidence_from` that measured the same workload on another target."""
    known = by_workload(evidence_from)
    return [
        Prepared(
            group,
            group_batch(group, [one for one in known.get(group.workload, []) if one.target != group.target]),
            group.labels,
        )
        for group in groups
    ]


def train(
    groups: Sequence[Prepared],
    validation: Sequence[Prepared],
    settings: Settings,
    tell: Callable[[dict[str, float]], None] = lambda _: None,
) -> Trained:
    """The model of the epoch with the best validation top-1 (without validation groups: the last)."""
    useful = [one for one in groups if np.ptp(one.labels) > 0]
    if not useful:
        raise NothingToLearn(f"none of {len(groups)} groups has programs of different speed")
    started_s = time.monotonic()
    torch.manual_seed(settings.seed)
    chance = np.random.default_rng(settings.seed)
    model = MODELS[settings.model](settings.shape)
    _standardise(model, useful)
    steps = math.ceil(len(useful) / settings.groups_per_step)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate((step + 1) / (steps * settings.epochs + 1))
    )
    best, best_epoch, kept = -1.0, 0, _copy(model)
    history: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        loss = _epoch(model, useful, settings, optimiser, schedule, chance)
        row = {"epoch": epoch, "loss": loss, **_validated(model, validation, frozenset(settings.always_masked))}
        history.append(row)
        tell(row)
        reached = row.get("top1", float(epoch))
        if reached > best:
            best, best_epoch, kept = reached, epoch, _copy(model)
        elif epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(kept)
    model.eval()
    return Trained(model, history, best_epoch, time.monotonic() - started_s)


def score(model: nn.Module, batch: Batch, masked: frozenset[str] = frozenset()) -> Scores:
    """(n,) scores; higher = faster."""
    model.eval()
    with torch.inference_mode():
        found: Scores = model(tensors_of(batch), masked).numpy().astype(np.float64)
    return found


def _rate(done: float) -> float:
    """Share of the learning rate when `done` of all steps are done: a rise, then half a cosine."""
    return done / WARM_UP if done < WARM_UP else 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))


def _epoch(
    model: nn.Module,
    groups: Sequence[Prepared],
    settings: Settings,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    chance: np.random.Generator,
) -> float:
    model.train()
    order = chance.permutation(len(groups))
    losses = []
    for start in range(0, len(order), settings.groups_per_step):
        optimiser.zero_grad()
        chosen = order[start : start + settings.groups_per_step]
        for position in chosen:
            loss = _group_loss(model, groups[position], settings, chance) / len(chosen)
            loss.backward()
            losses.append(float(loss.detach()) * len(chosen))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return float(np.mean(losses))


def _group_loss(model: nn.Module, one: Prepared, settings: Settings, chance: np.random.Generator) -> torch.Tensor:
    count = len(one.labels)
    indices = np.sort(chance.choice(count, size=min(settings.group_size, count), replace=False))
    batch = one.batch.chosen(indices)
    labels = torch.from_numpy(one.labels[indices].astype(np.float32))
    return LOSSES[settings.loss](model(tensors_of(batch), _masked(batch, settings, chance)), labels)


def _masked(batch: Batch, settings: Settings, chance: np.random.Generator) -> frozenset[str]:
    """Groups to leave out this time; never both that describe the program."""
    dropped = {name for name, share in settings.drop.items() if chance.random() < share}
    if {"statements", "schedule"} <= dropped or ("schedule" in dropped and not batch.statement_mask.any()):
        dropped.discard("schedule")
    return frozenset(dropped | set(settings.always_masked))


def _validated(model: nn.Module, groups: Sequence[Prepared], masked: frozenset[str]) -> dict[str, float]:
    if not groups:
        return {}
    tops = [top_k(score(model, one.batch, masked), one.labels, 1) for one in groups]
    return {"top1": float(np.mean(tops))}


def _standardise(model: nn.Module, groups: Sequence[Prepared]) -> None:
    """Mean and spread of the statement features, from what is trained on."""
    stores = np.concatenate([one.batch.statements[one.batch.statement_mask] for one in groups])
    programs = np.concatenate([one.batch.summary[one.batch.statement_mask.any(axis=1)] for one in groups])
    for name, rows in (("statement", stores), ("summary", programs)):
        if len(rows) and hasattr(model, f"{name}_mean"):
            getattr(model, f"{name}_mean").copy_(torch.from_numpy(rows.mean(axis=0)))
            getattr(model, f"{name}_scale").copy_(torch.from_numpy(np.maximum(rows.std(axis=0), SMALLEST_SPREAD)))


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
