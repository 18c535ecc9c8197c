"""Score candidates with a trained model: trees, then its network, if it has one, through onnxruntime. Workers need no
torch."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf, NoSuchFile

from crosstune.cost_model.attention.batches import Batch
from crosstune.cost_model.attention.card import GRAPH, UnusableModel, has_network, read_card
from crosstune.cost_model.attention.trees import Trees
from crosstune.cost_model.ranker import Scores
from crosstune.cost_model.roofline import roofline_s

NAMES = tuple(each.name for each in fields(Batch))
ONLY_ERRORS = 3


class Scorer:
    """The model in `folder`, for one thread at a time."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Raises UnusableModel."""
        self.card = read_card(folder)
        self._trees = Trees.load(folder, self.card["trees"], threads)
        self._session = _session(folder / GRAPH, threads) if has_network(self.card) else None

    def score(self, batch: Batch) -> Scores:
        """(n,) scores; higher = faster among the programs of one workload on one target."""
        return self._run(batch)[0]

    def latencies_s(self, batch: Batch) -> Scores:
        """(n,) estimated seconds; NaN for drafts, and where the target's peak rate is not known."""
        if not len(batch):
            return np.zeros(0)
        least_s = roofline_s(batch.hardware[0], batch.workload[0], batch.summary)
        found: Scores = least_s * np.exp2(self._run(batch)[1])
        return found

    def _run(self, batch: Batch) -> tuple[Scores, Scores]:
        if not len(batch):
            return np.zeros(0), np.zeros(0)
        expected = self._trees.expect(batch)
        if self._session is None:
            return expected.trees.astype(np.float64), np.full(len(batch), np.nan)
        scores, slowness = self._session.run(None, {name: getattr(expected, name) for name in NAMES})
        return scores.astype(np.float64), slowness.astype(np.float64)


@lru_cache(maxsize=4)
def load_scorer(folder: Path, threads: int = 1) -> Scorer:
    """The same one for every call in this process."""
    return Scorer(folder, threads)


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin while they wait take the cores from whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = ONLY_ERRORS
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidGraph, InvalidProtobuf, NoSuchFile, OSError) as error:
        raise UnusableModel(f"{path} is not the network that its card describes: {error}") from None
