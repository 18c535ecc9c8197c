"""Ansor, the baseline of the published figures, as a slow peer: see docs/benchmarks.md."""
