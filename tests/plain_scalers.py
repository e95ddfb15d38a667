"""A program that uses the scalers where scikit-learn is not installed; test_preprocessing_plain.py runs it.

Its first argument is a file to put results into. With a second one it takes scikit-learn, for results to compare.
"""

from __future__ import annotations

import pickle
import re
import sys

import numpy as np
import pytest

if len(sys.argv) == 2:
    sys.modules["sklearn"] = None  # importing it raises ModuleNotFoundError

from normkit.preprocessing import MinMaxScaler, StandardScaler
from normkit.streams import fit_chunks


class Sparse:
    def toarray(self):
        raise AssertionError

    tocsr = toarray


def raises(error, message, function, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        function(*args, **kwargs)


def check_parameters():
    scaler = MinMaxScaler((0, 2), clip=True)
    assert scaler.get_params() == dict(feature_range=(0, 2), copy=True, clip=True)
    assert repr(scaler) == "MinMaxScaler(clip=True, feature_range=(0, 2))"
    assert repr(StandardScaler()) == "StandardScaler()"
    assert scaler.set_params(clip=False) is scaler and not scaler.clip
    raises(ValueError, "Invalid parameter 'size' for estimator MinMaxScaler", scaler.set_params, size=3)
    X = np.eye(3)
    raises(ValueError, "The 'copy' parameter of StandardScaler must be an in", StandardScaler(copy=1).fit, X)
    raises(ValueError, "The 'feature_range' parameter of MinMaxScaler must", MinMaxScaler([0, 1]).fit, X)
    raises(ValueError, "must be smaller than maximum", MinMaxScaler((1, 0)).fit, X)


def check_errors(X):
    for scaler in (StandardScaler(), MinMaxScaler()):
        raises(AttributeError, "not fitted yet", scaler.transform, X)
        raises(ValueError, "not fitted yet", scaler.transform, X)
        scaler.fit(X)
        before = pickle.dumps(scaler)
        bad = [
            (ValueError, "X has 3 features, but", X[:, :3]),
            (ValueError, "Expected 2D array, got 1D array", X[0]),
            (ValueError, "Expected 2D array, got 3D array", X[None]),
            (ValueError, "Found array with 0 sample(s)", X[:0]),
            (ValueError, "Complex data not supported", X.astype(complex)),
            (ValueError, "contains infinity", np.full_like(X, np.inf)),
            (TypeError, "masked arrays are not supported", np.ma.masked_invalid(X)),
            (TypeError, "sparse matrices need scikit-learn", Sparse()),
        ]
        for error, message, data in bad:
            for method in (scaler.partial_fit, scaler.transform, scaler.inverse_transform):
                raises(error, message, method, data)
        raises(ValueError, "Found array with 0 feature(s)", scaler.fit, X[:, :0])
        assert pickle.dumps(scaler) == before
    scaler = StandardScaler()
    raises(ValueError, "expected (60,)", scaler.fit, X, sample_weight=np.ones(3))
    raises(ValueError, "sample_weight contains NaN", scaler.fit, X, sample_weight=np.nan)
    raises(ValueError, "at least one non-zero", scaler.fit, X, sample_weight=0)
    assert not hasattr(scaler, "n_features_in_")


def results(X):
    """Attributes and arrays by name."""
    found = {}
    for dtype in (np.float32, np.float64, np.int64):
        data = np.nan_to_num(X).astype(dtype) if dtype is np.int64 else X.astype(dtype)
        for scaler in (StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler((-1, 3), clip=True)):
            weights = dict(sample_weight=np.arange(60.0)) if isinstance(scaler, StandardScaler) else {}
            name = f"{scaler} {np.dtype(dtype)}"
            scaler.fit(data[:20], **{key: value[:20] for key, value in weights.items()})
            scaler.partial_fit(data[20:40], **{key: value[20:40] for key, value in weights.items()})
            scaler.merge(type(scaler)(**scaler.get_params()).fit(data[40:]))
            learned = {key: value for key, value in vars(scaler).items() if key.endswith("_") and key != "moments_"}
            found |= {f"{name} {key}": value for key, value in learned.items()}
            found[f"{name} transform"] = transformed = scaler.transform(data)
            found[f"{name} inverse"] = scaler.inverse_transform(transformed)
            found[f"{name} fit_transform"] = type(scaler)(**scaler.get_params()).fit_transform(data, **weights)
            found[f"{name} chunks"] = fit_chunks(scaler, np.split(data, 3)).transform(data.tolist())
    return found


def check(X):
    check_parameters()
    check_errors(X)
    data = X.astype(np.float32)
    assert StandardScaler(copy=False).fit(data).transform(data) is data
    data.flags.writeable = False
    assert StandardScaler(copy=False).fit(data).transform(data) is not data
    assert not [name for name, module in sys.modules.items() if name.startswith("sklearn") and module is not None]


def main():
    X = np.random.default_rng(0).normal(3, 2, (60, 4))
    X[::7, 1] = np.nan
    if len(sys.argv) == 2:
        check(X)
    np.savez(sys.argv[1], **results(X))


if __name__ == "__main__":
    main()
