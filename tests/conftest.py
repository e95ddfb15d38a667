"""Fixtures that every test module sees."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import normkit

sys.path.insert(0, str(Path(__file__).parent))  # reference.py, cases.py, layouts.py, under any import mode


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a second or two; run by default, skip with -m 'not slow'")


def pytest_collection_modifyitems(items):
    """Slow tests first: begun last, one of them would keep a single worker busy at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_report_header(config):
    info = normkit.build_info()
    return f"normkit: {info}, NORMKIT_QUICK={os.environ.get('NORMKIT_QUICK', '')!r}"


@pytest.fixture(autouse=True)
def default_threads():
    """No test leaves its number of threads behind."""
    yield
    normkit.set_num_threads(0)
