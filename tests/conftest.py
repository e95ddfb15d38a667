"""Fixtures that every test module sees."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import normkit

sys.path.insert(0, str(Path(__file__).parent))  # reference.py, cases.py, layouts.py, under any import mode

import cases


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a second or two; run by default, skip with -m 'not slow'")


def quick_grid(items):
    """What a quick run takes of the tests: of a grid of three axes or more a half or a third of the cells, so chosen
    that every two values of different axes still meet in one of them."""
    positions = defaultdict(dict)  # of the values along each axis of each test
    for item in items:
        total, least, axes = 0, 3, list(item.iter_markers("parametrize"))
        for axis in axes:
            names = axis.args[0].split(",") if isinstance(axis.args[0], str) else axis.args[0]
            value = repr([item.callspec.params[name.strip()] for name in names])
            along = positions[item.nodeid.partition("[")[0], tuple(names)]
            total += along.setdefault(value, len(along))
            least = min(least, len(axis.args[1]))
        # A sum that is to be 0 leaves any two positions free as long as a third one takes all remainders.
        if len(axes) < 3 or total % least == 0:
            yield item


def pytest_collection_modifyitems(config, items):
    if cases.QUICK:
        kept = list(quick_grid(items))
        config.hook.pytest_deselected(items=list({*items} - {*kept}))
        items[:] = kept
    # Slow tests first: begun last, one of them would keep a single worker busy at the end.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_report_header(config):
    info = normkit.build_info()
    return f"normkit: {info}, NORMKIT_QUICK={os.environ.get('NORMKIT_QUICK', '')!r}"


@pytest.fixture(scope="session")
def torch():
    """PyTorch, to compare with."""
    return pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def default_threads():
    """No test leaves its number of threads behind."""
    yield
    normkit.set_num_threads(0)
