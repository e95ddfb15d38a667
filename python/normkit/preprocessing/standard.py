"""StandardScaler: zero mean and unit variance."""

from __future__ import annotations

from typing import Any

import numpy as np

import normkit
from normkit.preprocessing import columns
from normkit.preprocessing.columns import Array
from normkit.preprocessing.estimator import Scaler, StandardBase, fitting, is_dask, own_memory, unchanged_on_error


class StandardScaler(Scaler, StandardBase):
    """Bring each feature to mean 0 and variance 1; a stand-in for scikit-learn's class of this name.

    Fitting reads the data once, transforming reads and writes them once, on all cores, with no temporary of their
    size; sums are taken in float64.

    Parameters
    ----------
    copy : bool, default True
        Whether `transform` and `inverse_transform` return a new array; if not, they write into their argument, if that
        is a writeable array of float16, float32 or float64.
    with_mean : bool, default True
        Whether to subtract the mean. Sparse data need False.
    with_std : bool, default True
        Whether to divide by the standard deviation.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,) or None
        The mean of what is not NaN; NaN where there is nothing. None if both `with_mean` and `with_std` are False.
    var_ : ndarray of shape (n_features,) or None
        The variance, divided by the count or the sum of weights; None if `with_std` is False.
    scale_ : ndarray of shape (n_features,) or None
        Its square root; 1 where the feature is constant within rounding, None if `with_std` is False.
    n_samples_seen_ : int, float or ndarray of shape (n_features,)
        How many values were not NaN, or the sum of their weights; per feature where features differ.
    moments_ : normkit.Moments
        What all of these come from.
    n_features_in_ : int
        How many features there are.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if `fit` was given them (with scikit-learn).

    Examples
    --------
    >>> import numpy as np
    >>> from normkit.preprocessing import StandardScaler
    >>> X = np.array([[0.0, 2.0], [np.nan, 2.0], [4.0, 2.0]], dtype=np.float32)
    >>> scaler = StandardScaler().fit(X)
    >>> scaler.mean_, scaler.scale_, scaler.n_samples_seen_
    (array([2., 2.]), array([2., 1.]), array([2, 3]))
    >>> scaler.transform(X)
    array([[-1.,  0.],
           [nan,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    _learned = ("mean_", "var_", "scale_", "n_samples_seen_", "moments_", "_weighted")
    _deciding = ("with_mean", "with_std")

    def __init__(self, *, copy: bool = True, with_mean: bool = True, with_std: bool = True) -> None:
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> StandardScaler:
        """Learn mean and variance of each feature, forgetting what was learned before.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            NaN is missing; float16, float32 and float64 are read as they are, anything else as float64.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            How often each sample counts; not negative.

        Returns
        -------
        self : StandardScaler
            Fitted.

        Raises
        ------
        ValueError
            X is not a table of finite numbers or NaN, or the weights do not fit it; the scaler is left as it was.
        """
        with unchanged_on_error(self):
            self._reset()
            return self.partial_fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> StandardScaler:
        """Learn from more data, as if they had been part of those given before.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As for `fit`.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            As for `fit`; without, each sample has weight 1.

        Returns
        -------
        self : StandardScaler
            Fitted.

        Raises
        ------
        ValueError
            As for `fit`; the scaler is left as it was.
        """
        with unchanged_on_error(self):
            if is_dask(X):
                self._learn_collection(X, sample_weight)
            elif self._foreign(X):
                super().partial_fit(X, y, sample_weight)
                self._take_attributes(weighted=sample_weight is not None)
            else:
                self._partial_fit_table(X, y, sample_weight)
        return self

    @fitting
    def _partial_fit_table(self, X: Any, y: Any, sample_weight: Any) -> None:
        table = self._check_table(X, reset=not self._is_fitted())
        with self._fit_task(table, y, sample_weight):
            weights = None if sample_weight is None else self._check_weights(sample_weight, table)
            moments = columns.full_moments(table, weights, finite=self._assumes_finite())
            details: dict[str, Any] = {"weighted": weights is not None}
            if self._is_fitted():
                moments, details = self.moments_.merge(moments), self._merged(details)
            self._learn(moments, details)

    def _learn(self, moments: normkit.Moments, details: dict[str, Any]) -> None:
        self.moments_, self._weighted = moments, bool(details["weighted"])
        count = moments.count.copy()
        seen: Array = count if self._weighted else count.astype(np.int64)
        self.n_samples_seen_ = seen[0] if (seen == seen[0]).all() else seen
        mean = np.where(count > 0, moments.mean, np.nan)
        self.mean_ = mean if self.with_mean or self.with_std else None
        self.var_ = self.scale_ = None
        if self.with_std:
            self.var_ = moments.var()
            constant = columns.near_constant(count, mean, self.var_)
            self.scale_ = np.where(constant, 1.0, np.sqrt(self.var_))

    def _details(self) -> dict[str, Any]:
        return {"weighted": self._weighted}

    def _merged(self, details: dict[str, Any]) -> dict[str, Any]:
        return {"weighted": self._weighted or details["weighted"]}

    def _take_attributes(self, *, weighted: bool) -> None:
        """Keep the moments in step with what scikit-learn's own method has learned."""
        vars(self).pop("moments_", None)
        self._weighted = weighted or getattr(self, "_weighted", False)
        seen, mean, variance = self.n_samples_seen_, self.mean_, self.var_
        if not all(value is None or isinstance(value, (np.ndarray, np.generic)) for value in (seen, mean, variance)):
            return  # of another library, and maybe on another device
        count = np.broadcast_to(np.asarray(seen, np.float64), self.n_features_in_)
        unknown = np.full(self.n_features_in_, np.nan)
        some = count > 0
        mean = np.where(some, unknown if mean is None else mean, 0.0)
        m2 = np.where(some, unknown if variance is None else variance * count, 0.0)
        # The attributes follow from the moments, as ever: a fit that is resumed from these has the same bits.
        self._learn(normkit.Moments(count, mean, m2), self._details())

    def _map(self, table: Array, *, inverse: bool, in_place: bool) -> Array:
        scale, shift = self.scale_ if self.with_std else None, self.mean_ if self.with_mean else None
        finite = self._assumes_finite()
        return columns.map_columns(table, scale=scale, shift=shift, inverse=inverse, in_place=in_place, finite=finite)

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Subtract the mean, divide by the standard deviation.

        Parameters
        ----------
        X : array-like, sparse matrix or Dask collection of shape (n_samples, n_features)
            NaN stays NaN. Of a Dask array or dataframe the result is a Dask array, whose infinities are refused when it
            is computed.
        copy : bool, optional
            Overrides the parameter of this name.

        Returns
        -------
        X_tr : ndarray or sparse matrix of shape (n_samples, n_features)
            Of the dtype of X where that is float16, float32 or float64; each value is rounded once.

        Raises
        ------
        ValueError
            The scaler is not fitted, or X does not have its features or holds an infinity.
        """
        if is_dask(X):
            return self._map_collection(X, "transform")
        if self._foreign(X):
            return super().transform(X, copy=copy)
        self._check_fitted()
        copy = self.copy if copy is None else copy
        table = self._check_table(X, writeable=not copy)
        return self._map(table, inverse=True, in_place=not copy or own_memory(table, X))

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Multiply by the standard deviation, add the mean.

        Parameters
        ----------
        X : array-like, sparse matrix or Dask collection of shape (n_samples, n_features)
            What `transform` has returned.
        copy : bool, optional
            Overrides the parameter of this name.

        Returns
        -------
        X_original : ndarray or sparse matrix of shape (n_samples, n_features)
            The values before `transform`, to rounding.

        Raises
        ------
        ValueError
            As for `transform`.
        """
        if is_dask(X):
            return self._map_collection(X, "inverse_transform")
        if self._foreign(X):
            return super().inverse_transform(X, copy=copy)
        self._check_fitted()
        copy = self.copy if copy is None else copy
        table = self._check_inverse(X, writeable=not copy)
        return self._map(table, inverse=False, in_place=not copy or own_memory(table, X))
