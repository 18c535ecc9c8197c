"""TenSet's multilayer perceptron (Zheng et al., "TenSet", NeurIPS Datasets 2021): encode each store, add them up, rank.

Their sizes: an encoder of two layers of 256, a residual layer after the sum, one output. It sees statement features
alone, and is trained here by the same loop as the attention model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosstune.cost_model.features import STATEMENT_COLUMNS

WIDTH = 256


class SegmentSum(nn.Module):  # type: ignore[misc]
    """Takes what the attention model takes; the other tokens are passed over."""

    statement_mean: Tensor
    statement_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(STATEMENT_COLUMNS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.residual = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, 1)
        self.register_buffer("statement_mean", torch.zeros(STATEMENT_COLUMNS))
        self.register_buffer("statement_scale", torch.ones(STATEMENT_COLUMNS))

    def forward(self, tensors: dict[str, Tensor], masked: frozenset[str] = frozenset()) -> tuple[Tensor, Tensor]:
        """(n,) scores, higher = faster, and no opinion of latencies. `masked` has no meaning here."""
        statements = (tensors["statements"] - self.statement_mean) / self.statement_scale
        encoded = self.encoder(statements) * tensors["statement_mask"][..., None]
        total = self.norm(encoded.sum(dim=1))
        scores: Tensor = self.output(total + self.residual(total))[:, 0]
        return scores, torch.full_like(scores, torch.nan)
