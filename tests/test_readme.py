"""The examples in README.md and in docs/ do what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    """The examples of a page, as one each where they stand alone, else together."""
    found = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return found if page == README else ["\n".join(found)] if found else []


BLOCKS = [pytest.param(block, page.name, id=page.name) for page in PAGES for block in blocks(page)]


def test_there_are_examples():
    assert BLOCKS


@pytest.mark.parametrize("block, name", BLOCKS)
def test_example(block, name):
    for module in re.findall(r"^>>> (?:import|from) (\w+)", block, re.MULTILINE):
        pytest.importorskip(module)
    example = doctest.DocTestParser().get_doctest(block, {}, name, name, 0)
    runner = doctest.DocTestRunner()
    report = []
    outcome = runner.run(example, out=report.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"
