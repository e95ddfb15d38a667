"""What the scalers stand on where scikit-learn is installed: its classes, its checks of what they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn
from sklearn.base import _fit_context
from sklearn.preprocessing import MinMaxScaler as MinMaxBase
from sklearn.preprocessing import StandardScaler as StandardBase
from sklearn.utils import check_array
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from normkit.preprocessing.columns import DTYPES, Array

try:
    from sklearn.utils.validation import validate_data
except ImportError as error:
    found = f"scikit-learn {sklearn.__version__}"
    raise ImportError(f"normkit.preprocessing needs scikit-learn 1.6 or newer, or none; found {found}") from error

__all__ = ["Checks", "MinMaxBase", "StandardBase", "fitting"]

# The table itself is searched for infinities later, in the pass over it that there is anyway.
OPTIONS = dict(dtype=list(DTYPES), ensure_all_finite=False)

fitting = _fit_context(prefer_skip_nested_validation=True)  # checks parameters first, tears callbacks down last


class Checks:
    """The checks of what a scaler is given: scikit-learn's."""

    n_features_in_: int

    def _check_fitted(self) -> None:
        check_is_fitted(self)

    def _foreign(self, X: Any) -> bool:
        """Tell what is left to scikit-learn's own methods: sparse, or of a library that it is told to dispatch to."""
        if isinstance(X, np.ndarray):
            return False
        if sklearn.get_config()["array_api_dispatch"]:
            return True
        return hasattr(X, "tocsr") or hasattr(X, "sparse")  # the latter: a data frame of sparse columns

    def _assumes_finite(self) -> bool:
        """Tell whether nothing need be searched for infinities."""
        return bool(sklearn.get_config()["assume_finite"])

    @contextlib.contextmanager
    def _fit_task(self, X: Any, y: Any, sample_weight: Any) -> Iterator[None]:
        """Tell callbacks that fitting begins and ends, where this version of scikit-learn's class has them."""
        if not hasattr(self, "_init_callback_context"):
            yield
            return
        told = dict(estimator=self, X=X, y=y, metadata={"sample_weight": sample_weight})
        context = self._init_callback_context()
        context.call_on_fit_task_begin(**told)
        yield
        context.call_on_fit_task_end(**told, reconstruction_attributes={})

    def _check_table(self, X: Any, *, reset: bool = False, writeable: bool = False) -> Array:
        """Make X an array of (samples, features) in one of DTYPES, not searched for infinities."""
        table: Array = validate_data(self, X, reset=reset, force_writeable=writeable, **OPTIONS)
        return table

    def _check_inverse(self, X: Any, *, writeable: bool = False) -> Array:
        """Do the same to what has been transformed, whose names need not be those of the features."""
        table: Array = check_array(X, force_writeable=writeable, estimator=self, input_name="X", **OPTIONS)
        if table.shape[1] != self.n_features_in_:
            what = f"X has {table.shape[1]} features, but {type(self).__name__}"
            raise ValueError(f"{what} is expecting {self.n_features_in_} features as input.")
        return table

    def _check_weights(self, sample_weight: Any, table: Array) -> Array:
        """Make weights one float64 per row."""
        weights: Array = _check_sample_weight(sample_weight, table, dtype=np.float64)
        return weights
