"""The attention model as the search's ranker: a trained model's scores, corrected by this target's own records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crosstune.cost_model.attention.batches import Batch
from crosstune.cost_model.attention.candidates import Candidates
from crosstune.cost_model.attention.correction import Correction
from crosstune.cost_model.attention.scoring import Scorer, load_scorer
from crosstune.cost_model.features import Matrix
from crosstune.cost_model.pretrained import model_folder
from crosstune.cost_model.ranker import Context, Example, Scores, labels

MAX_THREADS = 8
NO_TRACE: tuple[tuple[()], tuple[()]] = ((), ())


class AttentionRanker:
    """Informed from the start; one object serves one workload on one target.

    Examples without their context tell nothing and are passed over.
    """

    informed = True

    def __init__(self, seed: int = 0, model: Path | None = None, scorer: Scorer | None = None) -> None:
        """Raises UnusableModel."""
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self._scorer = scorer or load_scorer(model or model_folder(), threads)
        self._seed, self._correction = seed, Correction(seed)
        self._own: list[Example] = []
        self._candidates: Candidates | None = None

    def fit(self, examples: Sequence[Example]) -> None:
        """The network stays as it is: `score` corrects what it says by these."""
        self._own = [one for one in examples if one.context is not None and one.context.trace is not None]
        self._correction = Correction(self._seed)

    def score(self, features: Sequence[Matrix], contexts: Sequence[Context] | None = None) -> Scores:
        """Milliseconds more with some hundred own records. These are scored together with the candidates, since what a
        model expects is relative to what it sees beside."""
        if not features:
            return np.zeros(0)
        own = len(self._own)
        batch = self._batch(
            [*(one.features for one in self._own), *features],
            [*(one.context or Context() for one in self._own), *(contexts or [Context()] * len(features))],
        )
        scores = self._scorer.score(batch)
        self._correction.fit(batch.summary[:own], scores[:own], labels(self._own))
        return self._correction.applied(batch.summary[own:], scores[own:])

    def _batch(self, features: Sequence[Matrix], contexts: Sequence[Context]) -> Batch:
        if self._candidates is None:
            first = contexts[0]  # speaks for all
            self._candidates = Candidates(first.workload_module or "", first.target or {}, first.elsewhere)
        return self._candidates.batch([context.trace or NO_TRACE for context in contexts], features)
