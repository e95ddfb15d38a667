"""What the scalers stand on where scikit-learn is not installed: plain arrays, its parameters, its error messages."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from normkit.preprocessing.columns import DTYPES, Array

Method = TypeVar("Method", bound=Callable[..., Any])
Self = TypeVar("Self", bound="Checks")


class NotFittedError(ValueError, AttributeError):
    """Of an estimator that is used before `fit`; of the same kinds as scikit-learn's."""


def fitting(method: Method) -> Method:
    """Decorate the method that fits: parameters are checked first."""

    @functools.wraps(method)
    def checked(self: Checks, *args: Any, **kwargs: Any) -> Any:
        self._check_params()
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]  # of the same signature


class Checks:
    """Parameters, and the checks of what a scaler is given."""

    n_features_in_: int

    def _names(self) -> list[str]:
        return list(inspect.signature(type(self)).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return parameters by name; `deep` is ignored, there being no estimators within."""
        return {name: getattr(self, name) for name in sorted(self._names())}

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name; returns self. ValueError for a name that is none."""
        for name in params:
            if name not in self._names():
                valid = sorted(self._names())
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {valid}.")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        parameters = sorted(inspect.signature(type(self)).parameters.items())
        changed = [f"{name}={getattr(self, name)!r}" for name, p in parameters if getattr(self, name) != p.default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _check_params(self) -> None:
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value, kind = getattr(self, name), type(parameter.default)
            if not isinstance(value, (bool, np.bool_) if kind is bool else kind):
                what = f"The {name!r} parameter of {type(self).__name__} must be an instance of {kind.__name__!r}"
                raise ValueError(f"{what}. Got {value!r} instead.")

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_samples_seen_"):
            what = f"This {type(self).__name__} instance is not fitted yet."
            raise NotFittedError(f"{what} Call 'fit' with appropriate arguments before using this estimator.")

    def _foreign(self, X: Any) -> bool:
        """Tell what is left to scikit-learn's own methods, which here refuse it."""
        return hasattr(X, "toarray") and hasattr(X, "tocsr")

    def _assumes_finite(self) -> bool:
        """Tell whether nothing need be searched for infinities."""
        return False

    @contextlib.contextmanager
    def _fit_task(self, X: Any, y: Any, sample_weight: Any) -> Iterator[None]:
        """Tell who is to be told that fitting begins and ends: nobody."""
        yield

    def _check_table(self, X: Any, *, reset: bool = False, writeable: bool = False) -> Array:
        """Make X an array of (samples, features) in one of DTYPES, not searched for infinities."""
        if isinstance(X, np.ma.MaskedArray):
            raise TypeError(f"{type(self).__name__}: masked arrays are not supported; put NaN where values are missing")
        table = np.asarray(X)
        if table.dtype.kind == "c":
            raise ValueError(f"Complex data not supported\n{table}\n")
        if table.ndim != 2:
            what = f"Expected 2D array, got {table.ndim}D array instead"
            raise ValueError(f"{what}: use reshape(-1, 1) for a single feature, reshape(1, -1) for a single sample.")
        if table.dtype not in DTYPES:
            table = table.astype(np.float64)
        for axis, what in enumerate(("sample", "feature")):
            if table.shape[axis] == 0:
                shape = f"Found array with 0 {what}(s) (shape={table.shape})"
                raise ValueError(f"{shape} while a minimum of 1 is required by {type(self).__name__}.")
        if reset:
            self.n_features_in_ = table.shape[1]
        elif table.shape[1] != self.n_features_in_:
            what = f"X has {table.shape[1]} features, but {type(self).__name__}"
            raise ValueError(f"{what} is expecting {self.n_features_in_} features as input.")
        return table.copy("K") if writeable and not table.flags.writeable else table

    _check_inverse = _check_table

    def _check_weights(self, sample_weight: Any, table: Array) -> Array:
        """Make weights one float64 per row."""
        weights = np.asarray(sample_weight, np.float64)
        if weights.ndim == 0:
            weights = np.full(len(table), weights)
        if weights.shape != (len(table),):
            raise ValueError(f"sample_weight.shape == {weights.shape}, expected {(len(table),)}!")
        if not np.isfinite(weights).all():
            raise ValueError("Input sample_weight contains NaN or infinity.")
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weights


class _Base:
    """Stands where scikit-learn's class would, to which only what is foreign is left."""

    def partial_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse what is foreign."""
        raise TypeError(f"{type(self).__name__}: sparse matrices need scikit-learn (pip install 'normkit[sklearn]')")

    transform = inverse_transform = partial_fit

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Return ``fit(X, y, **fit_params).transform(X)``."""
        return self.fit(X, y, **fit_params).transform(X)  # type: ignore[attr-defined]  # of the scaler


class StandardBase(_Base):
    """Stands for scikit-learn's StandardScaler."""


class MinMaxBase(_Base):
    """Stands for scikit-learn's MinMaxScaler."""
