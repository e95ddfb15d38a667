"""What both scalers share: the state that they keep and merge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

import normkit
from normkit.preprocessing.columns import Array

if TYPE_CHECKING:
    from normkit.preprocessing.plain import Checks, MinMaxBase, StandardBase, fitting
else:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        from normkit.preprocessing.plain import Checks, MinMaxBase, StandardBase, fitting
    else:
        from normkit.preprocessing.with_sklearn import Checks, MinMaxBase, StandardBase, fitting

__all__ = ["MinMaxBase", "Scaler", "StandardBase", "fitting", "is_dask", "own_memory", "unchanged_on_error"]

Self = TypeVar("Self", bound="Scaler")


@contextlib.contextmanager
def unchanged_on_error(estimator: object) -> Iterator[None]:
    """Leave the estimator as it was if anything is raised within: all or nothing is learned.

    Attributes are put back, not their contents: within, arrays are replaced, never written.
    """
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def own_memory(table: Array, X: Any) -> bool:
    """Tell whether a table was made from X by a conversion, so that it may be written although X may not."""
    if isinstance(X, np.ndarray):
        return not np.may_share_memory(table, X)
    return isinstance(X, (list, tuple))


def is_dask(X: Any) -> bool:
    """Tell a collection of Dask's, which may not be installed."""
    return any(base.__module__.partition(".")[0] == "dask" for base in type(X).__mro__)


class Scaler(Checks):
    """The state of a fitted scaler: `moments_`, and what its subclasses derive from them."""

    moments_: normkit.Moments
    n_samples_seen_: Any
    feature_names_in_: Array

    _learned: ClassVar[tuple[str, ...]]  # attributes of what has been learned
    _deciding: ClassVar[tuple[str, ...]]  # parameters that decide what is learned

    def _reset(self) -> None:
        for name in self._learned:
            vars(self).pop(name, None)

    fit: Callable[..., Any]
    partial_fit: Callable[..., Any]

    def _is_fitted(self) -> bool:
        return hasattr(self, "n_samples_seen_")

    def _details(self) -> dict[str, Any]:
        """Say what is known besides the moments, as numbers and strings."""
        raise NotImplementedError

    def _learn(self, moments: normkit.Moments, details: dict[str, Any]) -> None:
        """Set all attributes of what has been learned."""
        raise NotImplementedError

    def _merged(self, details: dict[str, Any]) -> dict[str, Any]:
        """Join details of this and of another scaler's data."""
        raise NotImplementedError

    def _learn_collection(self, X: Any, sample_weight: Any = None) -> None:
        """Do the work of `partial_fit` on a Dask collection."""
        from normkit import dask

        dask.learn(self, X, sample_weight)

    def _map_collection(self, X: Any, method: str) -> Any:
        """Do the work of `transform` or `inverse_transform` on a Dask collection."""
        from normkit import dask

        return dask.mapped(self, X, method)

    def _settings(self) -> dict[str, Any]:
        """Name the class and the parameters that decide what is learned, as JSON would give them back."""
        params = {name: np.asarray(getattr(self, name)).tolist() for name in self._deciding}
        return {"class": type(self).__name__, **params}

    def _features(self) -> list[str] | int:
        """Name the features, or say how many there are where they have no names."""
        names = getattr(self, "feature_names_in_", None)
        return self.n_features_in_ if names is None else list(names)

    def _restore(self, features: list[str] | int, moments: normkit.Moments, details: dict[str, Any]) -> None:
        """Be as the scaler was that had learned these."""
        with unchanged_on_error(self):
            self._reset()
            vars(self).pop("feature_names_in_", None)
            self.n_features_in_ = features if isinstance(features, int) else len(features)
            if not isinstance(features, int):
                self.feature_names_in_ = np.asarray(features, dtype=object)
            self._learn(moments, details)

    def _check_mergeable(self, other: Any) -> None:
        name = f"{type(self).__name__}.merge"
        if not isinstance(other, Scaler) or self._settings()["class"] != other._settings()["class"]:
            got = f"{type(other).__module__}.{type(other).__name__}"
            raise TypeError(f"{name}: other must be a {type(self).__name__} of normkit's, got {got}")
        for scaler in (self, other):
            scaler._check_fitted()
            if not hasattr(scaler, "moments_"):
                raise ValueError(f"{name}: fitted on arrays of another library, without moments to merge")
        mine, others = self._settings(), other._settings()
        for param in mine:
            if mine[param] != others[param]:
                raise ValueError(f"{name}: {param} must be the same; got {mine[param]} and {others[param]}")
        if self.n_features_in_ != other.n_features_in_:
            got = f"got {self.n_features_in_} and {other.n_features_in_}"
            raise ValueError(f"{name}: both must have the same number of features; {got}")
        features, theirs = self._features(), other._features()
        if isinstance(features, list) and isinstance(theirs, list) and features != theirs:
            raise ValueError(f"{name}: both must have the same features; got {features} and {theirs}")

    def merge(self: Self, other: Self) -> Self:
        """Learn what another scaler has learned, as if its data had been given to `partial_fit`.

        Parameters
        ----------
        other : scaler
            A fitted scaler of the same class, features and parameters (`copy` and `clip` aside, which do not decide
            what is learned). It is left as it is.

        Returns
        -------
        self : scaler
            This scaler, fitted on both data: counts and extremes exactly, mean and variance to rounding.

        Raises
        ------
        TypeError
            `other` is not a scaler of this class.
        ValueError
            One of them is not fitted, or they do not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> from normkit.preprocessing import StandardScaler
        >>> halves = np.split(np.arange(20.0).reshape(10, 2), 2)
        >>> a, b = (StandardScaler().fit(half) for half in halves)
        >>> int(a.merge(b).n_samples_seen_), a.mean_
        (10, array([ 9., 10.]))
        """
        self._check_mergeable(other)
        with unchanged_on_error(self):
            self._learn(self.moments_.merge(other.moments_), self._merged(other._details()))
        return self
