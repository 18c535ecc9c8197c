"""The command line `crosstune`; `main` is its entry point.

Nothing but Typer and rich is imported before a command runs: `--help` answers at once, and neither TVM nor torch
comes into this process.
"""

from crosstune.service.cli import (
    audit,
    cost_models,
    database,
    dataset,
    devices,
    jobs,
    model,
    networks,
    results,
    serve,
    targets,
    worker,
)
from crosstune.service.cli.application import application

__all__ = ["application", "main"]

for group in (serve, worker, targets, networks, jobs, results, devices, cost_models, dataset, model, database, audit):
    group.register(application)


def main() -> None:
    application()
