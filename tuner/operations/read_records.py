"""Child side: read a data set that somebody uploaded, a stretch at a time, as JSON."""

from __future__ import annotations

import base64
import json
from itertools import islice
from pathlib import Path
from typing import Any

from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.folder import DatasetFolder, NoDataset
from crosstune.cost_model.dataset.reading import batches
from crosstune.cost_model.features import FEATURE_LAYOUT, layout_of
from crosstune.cost_model.formats import metaschedule

NAMES = ("format", "target", "workload", "trace", "latencies_s", "invalidity", "features", "quality")


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Answers `rows` from `start` on, at most `limit`, or `refused` with what is wrong; fewer rows are the last ones.

    payload: folder, start, limit
    """
    try:
        found = (row for batch in batches(DatasetFolder(Path(payload["folder"])), NAMES) for row in batch.to_pylist())
        rows = list(islice(found, payload["start"], payload["start"] + payload["limit"]))
        return {"rows": [_plain(row) for row in rows]}
    except (NoDataset, columns.WrongLayout, ValueError, TypeError, KeyError, OSError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}


def _plain(row: dict[str, Any]) -> dict[str, Any] | None:
    """None for what is no program of ours."""
    if row["format"] != metaschedule.FORMAT or not row["latencies_s"] or row["invalidity"]:
        return None
    features = row["features"]
    usable = features is not None and layout_of(features) == FEATURE_LAYOUT
    return {
        "target": json.loads(row["target"]),
        "workload": row["workload"],
        "trace": json.loads(row["trace"]),
        "latencies_s": [float(each) for each in row["latencies_s"]],
        "quality": row["quality"],
        "features": base64.b64encode(features).decode() if usable else None,
    }
