"""The network (torch): self-attention over all tokens of a candidate, a ranking head with residuals over what is known,
and a latency head.

The score is `head(attended) + belief * trees + faith * elsewhere + trust * copied`: `trees` is what gradient-boosted
trees expect of the program, `elsewhere` what trees expect that learnt from other targets' measurements of the workload,
`copied` the speed that the evidence tokens report, weighted by an attention of its own that starts from the nearest
hardware. An untrained model therefore ranks as these do together, and learns when not to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosstune.cost_model.attention.batches import MOST_BLOCKS, Batch
from crosstune.cost_model.attention.card import Shape
from crosstune.cost_model.features import STATEMENT_COLUMNS, VECTOR_LENGTH
from crosstune.cost_model.tokens.evidence import EVIDENCE_WIDTH, HARDWARE_DISTANCE, SCHEDULE_DISTANCE, SPEED
from crosstune.cost_model.tokens.hardware import HARDWARE_WIDTH
from crosstune.cost_model.tokens.vocabulary import WIDTH, Kind
from crosstune.cost_model.tokens.workload import WORKLOAD_WIDTH

GROUPS = ("hardware", "workload", "statements", "schedule", "evidence")
"""Token groups, each of which may be masked."""
MOST_KINDS = 64
"""Room for kinds that the vocabulary gets later."""
assert len(Kind) <= MOST_KINDS
COUNTS_ONCE = 0.5413
"""softplus makes 1 of it."""


class AttentionLayer(nn.Module):  # type: ignore[misc]
    """Self-attention, then two linear layers; both add to what came in and normalise before (Xiong et al., 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, shape.inner),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.inner, width),
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, tokens: Tensor, present: Tensor, asking: int | None = None) -> Tensor:
        """(n, asking, width): the first `asking` tokens (all by default) after looking at those of (n, tokens, width)
        that are `present` (n, tokens)."""
        normed = self.norm(tokens)
        asked, asked_normed = (tokens, normed) if asking is None else (tokens[:, :asking], normed[:, :asking])
        parts = (self.query(asked_normed), self.key(normed), self.value(normed))
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        logits = queries @ keys.transpose(2, 3) * (keys.shape[3] ** -0.5)
        weights = torch.softmax(logits.masked_fill(~present[:, None, None], -1e4), dim=3)
        found = self.output((weights @ values).transpose(1, 2).flatten(2))
        asked = asked + self.dropout(found)
        together: Tensor = asked + self.dropout(self.inner(asked))
        return together


class AttentionModel(nn.Module):  # type: ignore[misc]
    """Scores candidates (higher = faster within one workload on one target) and estimates their latency."""

    statement_mean: Tensor
    statement_scale: Tensor
    summary_mean: Tensor
    summary_scale: Tensor

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape or Shape()
        width = self.shape.width
        self.hardware = nn.Linear(HARDWARE_WIDTH, width)
        self.workload = nn.Linear(WORKLOAD_WIDTH, width)
        self.statement = nn.Sequential(nn.Linear(STATEMENT_COLUMNS, width), nn.GELU(), nn.Linear(width, width))
        self.summary = nn.Sequential(nn.Linear(VECTOR_LENGTH, width), nn.GELU(), nn.Linear(width, width))
        self.kind = nn.Embedding(MOST_KINDS, width)
        self.block = nn.Embedding(MOST_BLOCKS, width)
        self.position = nn.Embedding(64, width)
        self.step_values = nn.Linear(WIDTH, width)
        self.evidence = nn.Sequential(nn.Linear(EVIDENCE_WIDTH, width), nn.GELU(), nn.Linear(width, width))
        self.group = nn.Embedding(len(GROUPS) + 1, width)
        self.layers = nn.ModuleList(AttentionLayer(self.shape) for _ in range(self.shape.layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.evidence_weight = nn.Linear(EVIDENCE_WIDTH, 1)
        self.slowness = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.trust = nn.Linear(width, 1)
        self.belief = nn.Linear(width, 1)
        self.faith = nn.Linear(width, 1)
        self.register_buffer("statement_mean", torch.zeros(STATEMENT_COLUMNS))
        self.register_buffer("statement_scale", torch.ones(STATEMENT_COLUMNS))
        self.register_buffer("summary_mean", torch.zeros(VECTOR_LENGTH))
        self.register_buffer("summary_scale", torch.ones(VECTOR_LENGTH))
        self._start_from_what_is_known()

    def _start_from_what_is_known(self) -> None:
        with torch.no_grad():
            self.head[-1].weight.zero_()
            self.head[-1].bias.zero_()
            self.evidence_weight.weight.zero_()
            self.evidence_weight.bias.zero_()
            self.evidence_weight.weight[0, HARDWARE_DISTANCE] = -2.0
            self.evidence_weight.weight[0, SCHEDULE_DISTANCE] = -1.0
            for share in (self.trust, self.belief, self.faith):
                share.weight.zero_()
                share.bias.fill_(COUNTS_ONCE)

    def forward(self, tensors: dict[str, Tensor], masked: frozenset[str] = frozenset()) -> tuple[Tensor, Tensor]:
        """Of a batch as `tensors_of` gives it, without the `masked` groups: (n,) scores, and (n,) the expected log2 of
        the latency over the program's roofline."""
        tokens, present = self._tokens(tensors, masked)
        for layer in self.layers[:-1]:
            tokens = layer(tokens, present)
        attended = self.layers[-1](tokens, present, asking=1)[:, 0]  # only the gathering token is read
        score: Tensor = self.head(attended)[:, 0]
        if "statements" not in masked:
            score = score + nn.functional.softplus(self.belief(attended)[:, 0]) * tensors["trees"]
        if "evidence" not in masked:
            score = score + nn.functional.softplus(self.faith(attended)[:, 0]) * tensors["elsewhere"]
            score = score + nn.functional.softplus(self.trust(attended)[:, 0]) * self._copied(tensors)
        return score, self.slowness(attended)[:, 0]

    def _copied(self, tensors: dict[str, Tensor]) -> Tensor:
        """(n,) speeds of the most similar programs elsewhere, 0 where nothing is known."""
        mask = tensors["evidence_mask"]
        weights = self.evidence_weight(tensors["evidence"])[..., 0].masked_fill(~mask, -1e4)
        copied = (torch.softmax(weights, dim=1) * tensors["evidence"][..., SPEED]).sum(dim=1)
        return copied * (mask.sum(dim=1) > 0)

    def _tokens(self, tensors: dict[str, Tensor], masked: frozenset[str]) -> tuple[Tensor, Tensor]:
        """(n, tokens, width), and which of them are there; the first token gathers the rest."""
        count = tensors["kinds"].shape[0]  # not len(): the exporter would keep a number for it
        makers = {
            "hardware": lambda: self.hardware(tensors["hardware"])[:, None],
            "workload": lambda: self.workload(tensors["workload"])[:, None],
            "statements": lambda: self._statements(tensors),
            "schedule": lambda: self._schedule(tensors),
            "evidence": lambda: self.evidence(tensors["evidence"]),
        }
        always = torch.ones(count, 1, dtype=torch.bool, device=tensors["kinds"].device)
        present = {
            "hardware": always,
            "workload": tensors["workload"][:, :1] > 0,
            "statements": torch.cat([tensors["statement_mask"][:, :1], tensors["statement_mask"]], dim=1),
            "schedule": tensors["step_mask"],
            "evidence": tensors["evidence_mask"],
        }
        kept = [name for name in GROUPS if name not in masked]
        first = self.group.weight[len(GROUPS)].expand(count, 1, -1)
        labelled = [makers[name]() + self.group.weight[GROUPS.index(name)] for name in kept]
        return torch.cat([first, *labelled], dim=1), torch.cat([always, *(present[name] for name in kept)], dim=1)

    def _statements(self, tensors: dict[str, Tensor]) -> Tensor:
        """(n, 1 + stores, width): the summary of all stores, then each."""
        statements = (tensors["statements"] - self.statement_mean) / self.statement_scale
        summary = (tensors["summary"] - self.summary_mean) / self.summary_scale
        return torch.cat([self.summary(summary)[:, None], self.statement(statements)], dim=1)

    def _schedule(self, tensors: dict[str, Tensor]) -> Tensor:
        """(n, steps, width)"""
        places = torch.arange(tensors["kinds"].shape[1], device=tensors["kinds"].device)
        found: Tensor = self.kind(tensors["kinds"]) + self.block(tensors["blocks"]) + self.position(places)
        return found + self.step_values(tensors["values"])

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """The arrays of a batch by name, as torch sees them (memory is shared)."""
    names = batch.__dataclass_fields__
    return {name: torch.from_numpy(getattr(batch, name)) for name in names}
