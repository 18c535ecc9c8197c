"""List every claim with its goal: `make benchmarks`."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, Claim


def main() -> None:
    table = Table(title="Claims (benchmarks/results)")
    for column in ("benchmark", "claim", "value", "goal", "", "n", "processor", "commit"):
        table.add_column(column)
    for path in sorted(RESULTS.glob("*.json")):
        report = json.loads(path.read_text())
        for fields in report["claims"]:
            claim = Claim(**fields)
            sign = ">=" if claim.better == "higher" else "<="
            value = "not measured" if claim.value is None else f"{claim.value:.4g} {claim.unit}"
            verdict = "[green]reached" if claim.reached else "[red]missed"
            row = (path.stem, claim.id, value, f"{sign} {claim.goal:g}", verdict, str(claim.n))
            table.add_row(*row, report["machine"]["cpu"], report["commit"])
    Console().print(table)


if __name__ == "__main__":
    main()
