"""Rankers by name, made without importing what is not asked for."""

from __future__ import annotations

from pathlib import Path

from crosstune.cost_model.ranker import NeutralRanker, Ranker

NAMES = ("attention", "xgboost", "random")


def make_ranker(name: str, seed: int, model: Path | None = None) -> Ranker:
    """`attention`: the trained model, in the folder `model` or the one that comes with the package; `xgboost`: trees
    over statement features, trained on the target's own records alone; `random`: no opinion.

    ValueError for another name, UnusableModel for a folder that holds no model.
    """
    if name == "attention":
        from crosstune.cost_model.attention.ranker import AttentionRanker

        return AttentionRanker(seed, model)
    if name == "xgboost":
        from crosstune.cost_model.baselines.xgboost_ranker import XgboostRanker

        return XgboostRanker(seed)
    if name == "random":
        return NeutralRanker(seed)
    raise ValueError(f"no ranker {name!r}; known: {', '.join(NAMES)}")
