"""Scalers of tables: stand-ins for scikit-learn's `StandardScaler` and `MinMaxScaler`.

Where scikit-learn (1.6 or newer) is installed they are subclasses of its classes: the same parameters, attributes,
checks, feature names and output containers, with the work on dense arrays done by normkit. Without it they take plain
arrays.
"""

from normkit.preprocessing.min_max import MinMaxScaler
from normkit.preprocessing.standard import StandardScaler

__all__ = ["MinMaxScaler", "StandardScaler"]
