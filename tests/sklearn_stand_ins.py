"""A plugin of pytest under which scikit-learn's own tests see normkit's scalers in place of scikit-learn's.

Also where its functions, minmax_scale among them, make scalers. Calls are counted and printed, to show it was these.
"""

from __future__ import annotations

import collections
import functools

import sklearn.preprocessing
from sklearn.preprocessing import _data

from normkit.preprocessing import MinMaxScaler, StandardScaler

calls: collections.Counter[str] = collections.Counter()


def counted(method, name):
    @functools.wraps(method)
    def counting(*args, **kwargs):
        calls[name] += 1
        return method(*args, **kwargs)

    return counting


for scaler in (MinMaxScaler, StandardScaler):
    for method in ("_partial_fit_table", "_map"):
        setattr(scaler, method, counted(getattr(scaler, method), f"{scaler.__name__}.{method}"))
    for module in (sklearn.preprocessing, _data):
        setattr(module, scaler.__name__, scaler)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"normkit calls: {dict(calls)}")
