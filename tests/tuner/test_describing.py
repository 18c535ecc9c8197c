"""Statement features for records that were stored without them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crosstune.cost_model.dataset.folder import DatasetFolder, NotEmpty
from crosstune.cost_model.dataset.importing import Origin, import_stream
from crosstune.cost_model.features import STATEMENT_COLUMNS, unpack
from crosstune.cost_model.formats.record import Record, WorkloadRow, canonical
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import ImportedNetwork, RoundRequest, TargetSpec
from crosstune.tuner.describing import describe
from crosstune.tuner.search import propose

SPEC = TargetSpec("llvm", "x86-64-v2", 1, "test processor", triple="x86_64-linux-gnu")


def test_replaying_gives_the_features_that_the_search_had(
    template: Template, imported_network: ImportedNetwork, tmp_path: Path
) -> None:
    workload = max(imported_network.tasks, key=lambda one: one.workload.flops).workload
    with template.spawn("search") as child:
        proposed = propose(child, RoundRequest(SPEC, workload, (), (), 4, seed=1)).candidates
    broken = [[["GetSBlock", [], ["no such block", "main"], ["b0"]]], []]
    traces = [one.trace for one in proposed] + [broken]
    target = canonical(SPEC.to_json())
    records = [
        Record("metaschedule", "", workload.sha256, target, canonical(trace), (1e-3,), None, None, line)
        for line, trace in enumerate(traces, 1)
    ]
    gpu = records[0]._replace(target='{"kind":"cuda"}')
    source, result = DatasetFolder(tmp_path / "plain"), DatasetFolder(tmp_path / "described")
    items = [WorkloadRow(workload.sha256, "w", workload.module), *records, gpu]
    import_stream(source, "made", items, Origin("test"))

    counts = describe(template, source, result)

    assert counts == {"had": 0, "described": len(proposed), "without": 2}
    rows = pq.read_table(result.record_files()[0]).to_pylist()
    assert [json.loads(row["trace"]) for row in rows[:-1]] == traces
    assert [row["features"] for row in rows] == [one.features for one in proposed] + [None, None]
    assert unpack(rows[0]["features"]).shape[1] == STATEMENT_COLUMNS
    with pytest.raises(NotEmpty):
        describe(template, source, result)
