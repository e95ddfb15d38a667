"""MinMaxScaler: features between two numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

import normkit
from normkit.preprocessing import columns
from normkit.preprocessing.columns import Array
from normkit.preprocessing.estimator import MinMaxBase, Scaler, fitting, is_dask, own_memory, unchanged_on_error


class MinMaxScaler(Scaler, MinMaxBase):
    """Bring each feature into a range; a stand-in for scikit-learn's class of this name.

    Fitting reads the data once, transforming reads and writes them once, on all cores, with no temporary of their size.

    Parameters
    ----------
    feature_range : tuple (min, max), default (0, 1)
        The range.
    copy : bool, default True
        Whether `transform` and `inverse_transform` return a new array; if not, they write into their argument, if that
        is a writeable array of float16, float32 or float64.
    clip : bool, default False
        Whether to cut off what `transform` would bring outside of the range.

    Attributes
    ----------
    data_min_, data_max_, data_range_ : ndarray of shape (n_features,)
        The extremes of what is not NaN and their distance; NaN where there is nothing.
    scale_, min_ : ndarray of shape (n_features,)
        ``X * scale_ + min_`` is what `transform` gives. The dtype of all of these is that of the data.
    n_samples_seen_ : int
        How many samples there were, with NaN or without.
    moments_ : normkit.Moments
        Count, min and max of what is not NaN; mean and variance are not known.
    n_features_in_ : int
        How many features there are.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if `fit` was given them (with scikit-learn).

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.preprocessing import MinMaxScaler
    >>> X = np.array([[-1.0, 2.0], [0.0, 10.0], [np.nan, 18.0]])
    >>> scaler = MinMaxScaler(clip=True).fit(X)
    >>> scaler.data_max_, scaler.n_samples_seen_
    (array([ 0., 18.]), 3)
    >>> scaler.transform([[-0.75, 14.0], [5.0, np.nan]])
    array([[0.25, 0.75],
           [1.  ,  nan]])
    """

    _learned = ("data_min_", "data_max_", "data_range_", "scale_", "min_", "n_samples_seen_", "moments_")
    _deciding = ("feature_range",)

    def __init__(self, feature_range: tuple[float, float] = (0, 1), *, copy: bool = True, clip: bool = False) -> None:
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip

    def fit(self, X: Any, y: Any = None) -> MinMaxScaler:
        """Learn the extremes of each feature, forgetting what was learned before.

        Parameters
        ----------
        X : array-like or Dask collection of shape (n_samples, n_features)
            NaN is missing; float16, float32 and float64 are read as they are, anything else as float64. The chunks of a
            Dask array or dataframe are learned from at once, with the bits of one `partial_fit` after the other.
        y : None
            Ignored.

        Returns
        -------
        self : MinMaxScaler
            Fitted.

        Raises
        ------
        TypeError
            X is sparse.
        ValueError
            X is not a table of finite numbers or NaN, or `feature_range` is none; the scaler is left as it was.
        """
        with unchanged_on_error(self):
            self._reset()
            return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any = None) -> MinMaxScaler:
        """Learn from more data, as if they had been part of those given before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As for `fit`.
        y : None
            Ignored.

        Returns
        -------
        self : MinMaxScaler
            Fitted.

        Raises
        ------
        TypeError, ValueError
            As for `fit`; the scaler is left as it was.
        """
        with unchanged_on_error(self):
            if is_dask(X):
                self._learn_collection(X)
            elif self._foreign(X):
                super().partial_fit(X, y)
                self._take_attributes()
            else:
                self._partial_fit_table(X, y)
        return self

    @fitting
    def _partial_fit_table(self, X: Any, y: Any) -> None:
        if len(self.feature_range) != 2 or not self.feature_range[0] < self.feature_range[1]:
            what = "Minimum of desired feature range must be smaller than maximum."
            raise ValueError(f"{what} Got {self.feature_range}.")
        table = self._check_table(X, reset=not self._is_fitted())
        with self._fit_task(table, y, None):
            moments = columns.extremes(table, finite=self._assumes_finite())
            details: dict[str, Any] = {"rows": len(table), "dtype": table.dtype.name}
            if self._is_fitted():
                moments, details = self.moments_.merge(moments), self._merged(details)
            self._learn(moments, details)

    def _learn(self, moments: normkit.Moments, details: dict[str, Any]) -> None:
        self.moments_, self.n_samples_seen_ = moments, int(details["rows"])
        dtype, some = np.dtype(details["dtype"]), moments.count > 0
        low, high = (np.where(some, value, np.nan).astype(dtype) for value in (moments.min, moments.max))
        self.data_min_, self.data_max_, self.data_range_ = low, high, high - low
        self.scale_, self.min_ = self._factors(dtype)

    def _factors(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Compute `scale_` and `min_` in this dtype; in that of the data, they have the bits of scikit-learn's."""
        low, high = self.data_min_.astype(dtype), self.data_max_.astype(dtype)
        constant = self.data_range_ < 10 * np.finfo(self.data_range_.dtype).eps
        bounds = np.asarray(self.feature_range, dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # of half precision; data_range_ has told
            scale = (bounds[1] - bounds[0]) / np.where(constant, np.ones((), dtype), high - low)
            return scale, bounds[0] - low * scale

    def _wide_factors(self) -> tuple[Array, Array]:
        """Compute `scale_` and `min_` in float64: rounded to the data's dtype, they miss the range far from zero.

        Unless they were set to something else meanwhile, or `feature_range` was.
        """
        attributes = np.asarray(self.scale_), np.asarray(self.min_)
        known = [np.asarray(value) for value in (self.data_min_, self.data_max_, self.data_range_)]
        if all(value.dtype == np.float64 for value in (*attributes, *known)):
            return attributes
        learned = self._factors(self.data_min_.dtype)
        if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(attributes, learned, strict=True)):
            return self._factors(np.dtype(np.float64))
        return attributes

    def _details(self) -> dict[str, Any]:
        return {"rows": int(self.n_samples_seen_), "dtype": self.data_min_.dtype.name}

    def _merged(self, details: dict[str, Any]) -> dict[str, Any]:
        mine = self._details()
        dtype = np.result_type(np.dtype(mine["dtype"]), np.dtype(details["dtype"])).name
        return {"rows": mine["rows"] + details["rows"], "dtype": dtype}

    def _take_attributes(self) -> None:
        """Keep the moments in step with what scikit-learn's own method has learned."""
        vars(self).pop("moments_", None)
        if not isinstance(self.data_min_, np.ndarray):
            return  # of another library, and maybe on another device
        low, high = (np.asarray(value, np.float64) for value in (self.data_min_, self.data_max_))
        some, unknown = ~np.isnan(low), np.full(low.shape, np.nan)
        count = np.where(some, float(self.n_samples_seen_), 0.0)  # that is not told from what is missing
        mean = np.where(some, unknown, 0.0)
        low, high = np.where(some, low, np.inf), np.where(some, high, -np.inf)
        self.moments_ = normkit.Moments(count, mean, mean, low, high)

    def _map(self, table: Array, *, inverse: bool, in_place: bool) -> Array:
        low, high = self.feature_range
        scale, shift = self._wide_factors()
        return columns.map_columns(
            table,
            scale=scale,
            shift=shift,
            inverse=inverse,
            in_place=in_place,
            finite=self._assumes_finite(),
            clip=(low, high) if self.clip and not inverse else None,
        )

    def transform(self, X: Any) -> Any:
        """Bring features into the range.

        Parameters
        ----------
        X : array-like or Dask collection of shape (n_samples, n_features)
            NaN stays NaN. Of a Dask array or dataframe the result is a Dask array, whose infinities are refused when it
            is computed.

        Returns
        -------
        Xt : ndarray of shape (n_samples, n_features)
            Of the dtype of X where that is float16, float32 or float64; each value is rounded once.

        Raises
        ------
        ValueError
            The scaler is not fitted, or X does not have its features or holds an infinity.
        """
        if is_dask(X):
            return self._map_collection(X, "transform")
        if self._foreign(X):
            return super().transform(X)
        self._check_fitted()
        table = self._check_table(X, writeable=not self.copy)
        return self._map(table, inverse=False, in_place=not self.copy or own_memory(table, X))

    def inverse_transform(self, X: Any) -> Any:
        """Bring features back from the range.

        Parameters
        ----------
        X : array-like or Dask collection of shape (n_samples, n_features)
            What `transform` has returned.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            The values before `transform`, to rounding; what `clip` has cut off stays so.

        Raises
        ------
        ValueError
            As for `transform`.
        """
        if is_dask(X):
            return self._map_collection(X, "inverse_transform")
        if self._foreign(X):
            return super().inverse_transform(X)
        self._check_fitted()
        table = self._check_inverse(X, writeable=not self.copy)
        return self._map(table, inverse=True, in_place=not self.copy or own_memory(table, X))
