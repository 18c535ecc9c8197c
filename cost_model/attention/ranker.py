"""The attention model as the search's ranker: a trained model's scores, corrected by this target's own records."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from crosstune.cost_model.attention.candidates import Candidates
from crosstune.cost_model.attention.correction import Correction
from crosstune.cost_model.attention.scoring import Scorer, load_scorer
from crosstune.cost_model.features import Matrix, vector
from crosstune.cost_model.pretrained import model_folder
from crosstune.cost_model.ranker import Context, Example, Scores, labels

MAX_THREADS = 8
NO_TRACE: tuple[tuple[()], tuple[()]] = ((), ())


class AttentionRanker:
    """Informed from the start; one object serves one workload on one target.

    Examples without their context tell nothing and are passed over.
    """

    informed = True

    def __init__(self, seed: int = 0, scorer: Scorer | None = None) -> None:
        self._scorer = scorer or load_scorer(model_folder(), min(MAX_THREADS, len(os.sched_getaffinity(0))))
        self._correction = Correction(seed)
        self._candidates: Candidates | None = None

    def fit(self, examples: Sequence[Example]) -> None:
        """Milliseconds for some hundred examples: the network stays as it is."""
        own = [one for one in examples if one.context is not None and one.context.trace is not None]
        scores = self._scores([one.features for one in own], [one.context or Context() for one in own])
        rows = np.stack([vector(one.features) for one in own]) if own else np.zeros((0, 0), dtype=np.float32)
        self._correction.fit(rows, scores, labels(own))

    def score(self, features: Sequence[Matrix], contexts: Sequence[Context] | None = None) -> Scores:
        if not features:
            return np.zeros(0)
        scores = self._scores(features, contexts or [Context()] * len(features))
        return self._correction.applied(np.stack([vector(each) for each in features]), scores)

    def _scores(self, features: Sequence[Matrix], contexts: Sequence[Context]) -> Scores:
        if not contexts:
            return np.zeros(0)
        if self._candidates is None:
            first = contexts[0]  # speaks for all
            self._candidates = Candidates(first.workload_module or "", first.target or {}, first.elsewhere)
        batch = self._candidates.batch([context.trace or NO_TRACE for context in contexts], features)
        return self._scorer.score(batch)
