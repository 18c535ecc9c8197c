"""README.md and docs/ name only what exists, and show the figures that were measured."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|//")


def code(page: Path) -> Iterator[str]:
    """Fenced blocks and code spans."""
    return (found.group() for found in CODE.finditer(page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if ELSEWHERE.match(link):
            continue
        name, _, anchor = link.partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in code(page) for name in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_to_be_run_exists(page: Path) -> None:
    for text in code(page):
        for module in re.findall(r"python -m ((?:benchmarks|crosstune)[\w.]*)", text):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{page.name}: {module}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    folders = "service|tuner|cost_model|db|benchmarks|tests|examples"
    for text in code(page):
        for path in re.findall(rf"(?<![\w./-])(?:{folders})/(?:[\w/]*\w\.\w+|[\w/]*)", text):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {name for name in LINK.findall((ROOT / "README.md").read_text()) if name.startswith("docs/")}
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked


def test_the_readme_shows_the_stored_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    readme = importlib.import_module("benchmarks.readme")
    found = readme.reports()
    if not found:
        pytest.skip("there are no results of benchmarks")
    text = (ROOT / "README.md").read_text()
    assert text == readme.filled(text, found), "run: python -m benchmarks.readme"
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page == readme.performance_filled(page, found), "run: python -m benchmarks.readme"
    page = (ROOT / "docs" / "capacity.md").read_text()
    assert page == readme.capacity_filled(page, found), "run: python -m benchmarks.readme"


def test_blocks_of_the_readme_are_empty_without_results_and_filled_twice_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    readme = importlib.import_module("benchmarks.readme")
    text = "a\n<!-- demo -->\nold\n<!-- /demo -->\nb\n<!-- claims -->\n<!-- /claims -->\nc\n"
    assert readme.filled(text, {}) == text.replace("old\n", "")
    claim = {"id": "x_per_s", "value": 3.5, "unit": "1/s", "goal": 4, "better": "higher", "spread": None, "n": 1}
    once = readme.filled(text, {"x": {"claims": [claim], "machine": {"cpu": "a | b"}}})
    assert "| x | `x_per_s` | 3.5 1/s | at least 4, missed | a \\| b |" in once
    assert readme.filled(once, {"x": {"claims": [claim], "machine": {"cpu": "a | b"}}}) == once
    with pytest.raises(readme.BlockMissing):
        readme.filled("no block", {})


def test_the_cost_models_page_shows_the_stored_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    readme = importlib.import_module("benchmarks.readme")
    text = (ROOT / "docs" / "cost-model.md").read_text()
    assert text == readme.page_filled(text, readme.reports()), "run: python -m benchmarks.readme"
