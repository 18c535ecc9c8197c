"""Bring the figures in README.md and docs/ up to date with benchmarks/results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Claim

README = Path(__file__).resolve().parents[1] / "README.md"
COST_MODEL_PAGE = README.parent / "docs" / "cost-model.md"
PERFORMANCE_PAGE = README.parent / "docs" / "performance.md"
CAPACITY_PAGE = README.parent / "docs" / "capacity.md"
SEARCHING = ("guided_search", "network_time", "stopping", "time_to_quality", "transfer", "answers")
"""Benchmarks of how a search spends its time."""
DEMO, CLAIMS, FIGURES, COST_MODEL, FLEET = "demo", "claims", "figures", "cost_model", "fleet"
SOURCES, STARTS, NETWORKS = "sources", "starts", "networks"
SCALING, CHAOS, LOAD = "scaling", "chaos", "load"
SOURCE_COLUMNS = ("source", "targets", "workloads", "programs")
"""Of what was collected: one row for each collection, in groups that are large enough to be ranked."""
"""The blocks that are filled: what stands between `<!-- name -->` and `<!-- /name -->`."""
RIGHT, LEFT = "---:", "---"
ABSENT = "-"

Report = Mapping[str, Any]
"""The content of one file of results; see `benchmarks.report`."""


class BlockMissing(ValueError):
    """The text lacks a block, or has it more than once."""


def main() -> None:
    found = reports()
    README.write_text(filled(README.read_text(), found))
    COST_MODEL_PAGE.write_text(page_filled(COST_MODEL_PAGE.read_text(), found))
    PERFORMANCE_PAGE.write_text(performance_filled(PERFORMANCE_PAGE.read_text(), found))
    CAPACITY_PAGE.write_text(capacity_filled(CAPACITY_PAGE.read_text(), found))


def reports(folder: Path = RESULTS) -> dict[str, Report]:
    """The stored results by benchmark; empty where there are none."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def filled(text: str, found: Mapping[str, Report]) -> str:
    """`text` with both blocks made from the results; a block whose results are missing becomes empty."""
    demo = demo_block(found[DEMO]) if DEMO in found else ""
    return replaced(replaced(text, DEMO, demo), CLAIMS, claims_table(found))


def page_filled(text: str, found: Mapping[str, Report]) -> str:
    """The cost model's page with its block made from the results."""
    return replaced(text, FIGURES, cost_model_block(found[COST_MODEL]) if COST_MODEL in found else "")


def performance_filled(text: str, found: Mapping[str, Report]) -> str:
    """The page on searching with its claims, where the best schedules came from, and how soon others are reached."""
    claims = claims_table({name: found[name] for name in SEARCHING if name in found})
    table = sources_table(found["transfer"]["data"].get("sources", ())) if "transfer" in found else ""
    starts = starts_table(found["time_to_quality"]["data"]["starts"]) if "time_to_quality" in found else ""
    networks = networks_table(found["network_time"]["data"]["starts"]) if "network_time" in found else ""
    blocks = {CLAIMS: claims, SOURCES: table, STARTS: starts, NETWORKS: networks}
    for name, body in blocks.items():
        text = replaced(text, name, body)
    return text


def capacity_filled(text: str, found: Mapping[str, Report]) -> str:
    """The page on what a fleet needs, with its claims and a table for each part of the benchmark."""
    parts: Mapping[str, Mapping[str, Any]] = found[FLEET]["data"] if FLEET in found else {}
    blocks = {
        CLAIMS: claims_table({name: found[name] for name in (FLEET,) if name in found}),
        SCALING: scaling_table([one for name, one in parts.items() if name.startswith(SCALING)]),
        CHAOS: chaos_table([one for name, one in parts.items() if name.startswith(CHAOS)]),
        LOAD: load_table({name.removeprefix("load-"): one for name, one in parts.items() if "p95_ms" in one}),
    }
    for name, body in blocks.items():
        text = replaced(text, name, body)
    return text


def scaling_table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = ("jobs", "workers", "rounds per second", "of one worker's", "transactions per round")
    alone = {one["jobs"]: one["rounds_per_s"] for one in rows if one["workers"] == 1}
    cells = [
        (
            one["jobs"].replace("_", " "),
            str(one["workers"]),
            f"{one['rounds_per_s']:.2f}",
            f"{one['rounds_per_s'] / alone[one['jobs']]:.1f} times",
            f"{one['transactions_per_round']:.1f}",
        )
        for one in rows
    ]
    return _table(columns, (LEFT, RIGHT, RIGHT, RIGHT, RIGHT), cells) if cells else ""


def chaos_table(episodes: Sequence[Mapping[str, Any]]) -> str:
    """Sums over the episodes."""
    kinds = sorted({kind for one in episodes for kind in one["kills"]})
    sums = ("acknowledged", "succeeded", "lost", "doubled", "steps", "repeated", "measurements")
    cells = [(kind, str(sum(one["kills"].get(kind, 0) for one in episodes))) for kind in kinds]
    cells += [(name, str(sum(one[name] for one in episodes))) for name in sums]
    return _table(("what", "how many"), (LEFT, RIGHT), cells) if episodes else ""


def load_table(queried: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("database", "records", "bytes of each", "median", "95th percentile")
    cells = [
        (
            name,
            f"{one['records']:,}",
            f"{one['bytes_per_record']:,.0f}",
            *(f"{one[figure]:.1f} ms" for figure in ("median_ms", "p95_ms")),
        )
        for name, one in queried.items()
    ]
    return _table(columns, (LEFT, RIGHT, RIGHT, RIGHT, RIGHT), cells) if cells else ""


def networks_table(runs: Iterable[Mapping[str, Any]]) -> str:
    """By network and run: latency, speed as a share of the best run's, seconds until near that and until the peer's
    end."""
    columns = ("network", "run", "latency", "speed over the best", "seconds until near it", "until as good as repaired")
    rows = [
        (
            one["network"],
            one["run"],
            f"{1e3 * one['latency_s']:.2f} ms",
            f"{one['share_of_best']:.2f}",
            *(ABSENT if one[name] is None else f"{one[name]:.0f}" for name in ("reached_s", "passed_peer_s")),
        )
        for one in runs
    ]
    return _table(columns, (LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT), rows) if rows else ""


def starts_table(starts: Iterable[Mapping[str, Any]]) -> str:
    """By start and peer: medians over operators of the peer's seconds and trials over ours, and of the latencies."""
    columns = ("start", "peer", "seconds, theirs over ours", "trials", "as good on", "best latency, ours over theirs")
    rows = [
        (
            one["start"],
            name,
            f"{found['seconds']:.1f}",
            f"{found['trials']:.1f}",
            f"{found['reached']} of {found['operators']}",
            f"{found['best_latency']:.2f}",
        )
        for one in starts
        for name, found in one.items()
        if name != "start"
    ]
    return _table(columns, (LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT), rows) if rows else ""


def sources_table(sources: Iterable[Mapping[str, Any]]) -> str:
    """By start and source of candidates: how many schedules were at hand, fitted, ran, and led in the end."""
    columns = ("start", "source", "at hand", "fit", "measured", "share of the bests")
    rows = [
        (
            one["start"],
            one["source"],
            *(str(one[name] or ABSENT) for name in ("offered", "fit", "measured")),
            f"{one['share_of_bests']:.2f}",
        )
        for one in sources
    ]
    return _table(columns, (LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT), rows) if rows else ""


def cost_model_block(report: Report) -> str:
    """What was trained on, how well repeats agree, and each method on each split."""
    data, seeds = report["data"], report["data"]["seeds"]
    where = (
        f"{report['machine']['cpu']}, {report['date'][:10]}: {data['programs']:,} programs of {data['workloads']} "
        f"workloads in {data['groups']} groups, {seeds} seeds. Means and 95 % intervals over workloads; "
        "a case is a group with one seed."
    )
    sources = [tuple(str(one[name]) for name in SOURCE_COLUMNS) for one in data.get("sources", ())]
    collected = [_table(SOURCE_COLUMNS, (LEFT, RIGHT, RIGHT, RIGHT), sources)] if sources else []  # older results: none
    ceiling = data["ceiling"]
    noise = (
        f"The noise ceiling, over {ceiling['groups']:.0f} groups: pairwise {ceiling['pairwise']:.3f}, "
        f"top-1 {ceiling['top1']:.3f}, top-5 {ceiling['top5']:.3f}."
        if ceiling
        else "Nothing was measured a second time."
    )
    rows = [
        (
            row["split"],
            row["method"],
            str(row["cases"]),
            *(_interval(row[name]) for name in ("pairwise", "top1", "top5")),
        )
        for row in data["methods"]
    ]
    columns = ("split", "method", "cases", "pairwise", "top-1", "top-5")
    return "\n\n".join([where, *collected, noise, _table(columns, (LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT), rows)])


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def replaced(text: str, name: str, body: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise BlockMissing(f"there must be one block between {begin} and {end}")
    inside = f"\n{body}\n\n" if body else ""
    return pattern.sub(lambda _: f"{begin}\n{inside}{end}", text)


def claims_table(found: Mapping[str, Report]) -> str:
    """Every claim with its goal and the processor it was measured on."""
    rows = [
        (name, f"`{claim.id}`", _value(claim), _goal(claim), report["machine"]["cpu"])
        for name, report in sorted(found.items())
        for claim in (Claim(**fields) for fields in report["claims"])
    ]
    columns = ("benchmark", "claim", "value", "goal", "processor")
    return _table(columns, (LEFT, LEFT, RIGHT, RIGHT, LEFT), rows) if rows else ""


def demo_block(report: Report) -> str:
    """The figures of the demo: its machine, the whole network, each task."""
    data, machine = report["data"], report["machine"]
    threads = machine["threads"]
    where = f"{machine['cpu']}, {threads} thread{'' if threads == 1 else 's'}, {report['date'][:10]}"
    return "\n\n".join([f"{where}.", network_table(data), tasks_table(data["tasks"])])


def network_table(data: Mapping[str, Any]) -> str:
    untuned_s, tuned_s = data["untuned_latency_s"], data["tuned_latency_s"]
    rate, error = data["trials_per_s"], data["largest_error"]
    rows = [
        ("default schedules", f"{_milliseconds(untuned_s)} ms"),
        ("tuned", f"{_milliseconds(tuned_s)} ms"),
        ("onnxruntime, same cores and threads", f"{_milliseconds(data['onnxruntime_latency_s'])} ms"),
        ("speed-up over default schedules", f"{untuned_s / tuned_s:.2f}x" if untuned_s and tuned_s else ABSENT),
        ("largest output error against onnxruntime", ABSENT if error is None else f"{error:.1e}"),
        ("trials", str(data["trials"])),
        ("trials per second", ABSENT if rate is None else f"{rate:.2f}"),
    ]
    return _table(("network", ""), (LEFT, RIGHT), rows)


def tasks_table(tasks: Iterable[Mapping[str, Any]]) -> str:
    """One row per task, those that cost most without tuning first."""
    rows = [
        (
            task["name"],
            str(task["weight"]),
            f"{task['flops'] / 1e6:.2f}",
            _milliseconds(task["untuned_latency_s"]),
            _milliseconds(task["best_latency_s"]),
            _gigaflops(task["flops"], task["best_latency_s"]),
        )
        for task in sorted(tasks, key=lambda task: -task["weight"] * (task["untuned_latency_s"] or 0.0))
    ]
    columns = ("task", "calls", "MFLOP", "untuned ms", "best ms", "best GFLOP/s")
    return _table(columns, (LEFT, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT), rows)


def _value(claim: Claim) -> str:
    return "not measured" if claim.value is None else f"{claim.value:.4g} {claim.unit}".strip()


def _goal(claim: Claim) -> str:
    sign = "at least" if claim.better == "higher" else "at most"
    return f"{sign} {claim.goal:g}{'' if claim.reached else ', missed'}"


def _milliseconds(latency_s: float | None) -> str:
    return ABSENT if latency_s is None else f"{1e3 * latency_s:.3f}"


def _gigaflops(flops: float, latency_s: float | None) -> str:
    return f"{flops / latency_s / 1e9:.1f}" if flops and latency_s else ABSENT


def _table(columns: Sequence[str], rules: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
