"""Train the attention model on groups; seeded, and stopped early by the validation groups' top-1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crosstune.cost_model.attention.batches import Batch
from crosstune.cost_model.attention.card import Shape
from crosstune.cost_model.attention.losses import LOSSES, slowness_loss
from crosstune.cost_model.attention.model import AttentionModel, tensors_of
from crosstune.cost_model.attention.prepared import Prepared
from crosstune.cost_model.baselines.segment_sum import SegmentSum
from crosstune.cost_model.errors import CostModelError
from crosstune.cost_model.metrics import top_k
from crosstune.cost_model.ranker import Scores

WARM_UP = 0.2
SMALLEST_SPREAD = 0.05
"""A feature that hardly ever changes in training must not explode where it does."""

MISSING: tuple[frozenset[str], ...] = (frozenset(), frozenset({"evidence"}), frozenset({"evidence", "statements"}))
"""What validation is averaged over: all is there, nothing is known elsewhere, and a draft of such a workload."""


class NothingToLearn(CostModelError):
    """No group has two programs of different speed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train; all of it is written into the model's card."""

    seed: int = 0
    epochs: int = 30
    patience: int = 6
    """Epochs without a better validation before it ends."""
    seconds: float | None = None
    """No epoch begins after so long."""
    learning_rate: float = 1e-4
    """At 1e-3 a network of this size learns to rank drafts at the cost of lowered programs, where trees are better."""
    weight_decay: float = 0.01
    group_size: int = 48
    """Programs of a group in one step, drawn anew each time."""
    groups_per_step: int = 4
    averaging: float = 0.98
    """Decay, per step, of the running mean of the weights, which is what is validated and kept: single weights jump."""
    loss: str = "lambda_rank"
    latency_weight: float = 0.05
    """Of the latency head's loss beside the ranking loss."""
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


@dataclass(frozen=True, slots=True)
class Trained:
    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    """-1: no epoch was better than the untrained model."""
    seconds: float


def train(
    groups: Sequence[Prepared],
    validation: Sequence[Prepared],
    settings: Settings,
    tell: Callable[[dict[str, float]], None] = lambda _: None,
    start: nn.Module | None = None,
) -> Trained:
    """The model of the epoch with the best validation top-1 (without validation groups: the last).

    The untrained model, which ranks as trees and copying do, is the first candidate; or `start`, a model of the same
    shape, whose weights it then begins with.
    """
    useful = [one for one in groups if np.ptp(one.labels) > 0]
    if not useful:
        raise NothingToLearn(f"none of {len(groups)} groups has programs of different speed")
    started_s = time.monotonic()
    torch.manual_seed(settings.seed)
    chance = np.random.default_rng(settings.seed)
    model = MODELS[settings.model](settings.shape)
    if start is None:
        _standardise(model, useful)
    else:
        model.load_state_dict(start.state_dict())
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
    masked = frozenset(settings.always_masked)
    steps = math.ceil(len(useful) / settings.groups_per_step)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate((step + 1) / (steps * settings.epochs + 1))
    )
    best, best_epoch, kept = _validated(model, validation, masked).get("top1", -1.0), -1, _copy(model)
    history: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        loss = _epoch(averaged, model, useful, settings, optimiser, schedule, chance)
        row = {"epoch": epoch, "loss": loss, **_validated(averaged.module, validation, masked)}
        history.append(row)
        tell(row)
        reached = row.get("top1", float(epoch))
        if reached > best:
            best, best_epoch, kept = reached, epoch, _copy(averaged.module)
        elif epoch - max(0, best_epoch) >= settings.patience:
            break
        if settings.seconds is not None and time.monotonic() - started_s > settings.seconds:
            break
    model.load_state_dict(kept)
    model.eval()
    return Trained(model, history, best_epoch, time.monotonic() - started_s)


def score(model: nn.Module, batch: Batch, masked: frozenset[str] = frozenset()) -> Scores:
    """(n,) scores; higher = faster."""
    model.eval()
    with torch.inference_mode():
        found: Scores = model(tensors_of(batch), masked)[0].numpy().astype(np.float64)
    return found


def _rate(done: float) -> float:
    """Share of the learning rate when `done` of all steps are done: a rise, then half a cosine."""
    return done / WARM_UP if done < WARM_UP else 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))


def _epoch(
    averaged: AveragedModel,
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
        averaged.update_parameters(model)
    return float(np.mean(losses))


def _group_loss(model: nn.Module, one: Prepared, settings: Settings, chance: np.random.Generator) -> torch.Tensor:
    count = len(one.labels)
    indices = np.sort(chance.choice(count, size=min(settings.group_size, count), replace=False))
    batch = one.batch.chosen(indices)
    labels = torch.from_numpy(one.labels[indices].astype(np.float32))
    scores, slowness = model(tensors_of(batch), _masked(batch, settings, chance))
    expected = torch.from_numpy(one.slowness[indices].astype(np.float32))
    return LOSSES[settings.loss](scores, labels) + settings.latency_weight * slowness_loss(slowness, expected)


def _masked(batch: Batch, settings: Settings, chance: np.random.Generator) -> frozenset[str]:
    """Groups to leave out this time; never both that describe the program."""
    dropped = {name for name, share in settings.drop.items() if chance.random() < share}
    if {"statements", "schedule"} <= dropped or ("schedule" in dropped and not batch.statement_mask.any()):
        dropped.discard("schedule")
    return frozenset(dropped | set(settings.always_masked))


def _validated(model: nn.Module, groups: Sequence[Prepared], masked: frozenset[str]) -> dict[str, float]:
    if not groups:
        return {}
    modes = {masked | missing for missing in MISSING}
    tops = [top_k(score(model, one.batch, mode), one.labels, 1) for mode in modes for one in groups]
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
