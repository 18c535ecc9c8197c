"""Ranking losses over the programs of one group: scores (n,), labels (n,) in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

CLOSE = 0.02
"""Labels nearer than this are as good as equal: measurements vary by about as much."""


def lambda_rank(scores: Tensor, labels: Tensor) -> Tensor:
    """Pairs weighted by what swapping them changes in NDCG (Burges, "From RankNet to LambdaRank", 2010)."""
    differs, sign, log_loss = _pairs(scores, labels)
    ranks = torch.argsort(torch.argsort(scores, descending=True)).to(scores.dtype)
    discounts = 1.0 / torch.log2(ranks + 2.0)
    gains = torch.pow(2.0, 4.0 * labels) - 1.0
    ideal = (torch.sort(gains, descending=True).values / torch.log2(torch.arange(len(gains)) + 2.0)).sum()
    change = (gains[:, None] - gains[None]).abs() * (discounts[:, None] - discounts[None]).abs() / ideal.clamp(min=1e-6)
    weights = change.detach() * differs * (sign > 0)
    return (weights * log_loss).sum() / weights.sum().clamp(min=1e-6)


def pairwise(scores: Tensor, labels: Tensor) -> Tensor:
    """The logistic loss of every pair that differs (RankNet), weighted by how much it does."""
    differs, sign, log_loss = _pairs(scores, labels)
    weights = differs * (sign > 0) * (labels[:, None] - labels[None]).abs()
    return (weights * log_loss).sum() / weights.sum().clamp(min=1e-6)


def slowness_loss(found: Tensor, expected: Tensor) -> Tensor:
    """Huber's loss where both are known; logarithms, so an error of 1 is a factor of two."""
    known = ~(torch.isnan(found) | torch.isnan(expected))
    if not bool(known.any()):
        return torch.zeros(())
    return torch.nn.functional.huber_loss(found[known], expected[known])


def _pairs(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, n) each: is the pair different, which is better, and its logistic loss."""
    gap = labels[:, None] - labels[None]
    sign = torch.sign(gap)
    return (
        (gap.abs() > CLOSE).to(scores.dtype),
        sign,
        torch.nn.functional.softplus(-sign * (scores[:, None] - scores[None])),
    )


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: Mapping[str, Loss] = {"lambda_rank": lambda_rank, "pairwise": pairwise}
