"""What `fuse` has done to a model, and what it has not, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["BatchNormFate", "FuseSummary"]


@dataclass(frozen=True)
class BatchNormFate:
    """What has become of one batch norm.

    Attributes
    ----------
    batch_norm : str
        Its path in the model; of a call of a function, the name of that call in the trace.
    layer : str or None
        The path of the layer that it has been folded into; None where it is as it was.
    reason : str
        Why it is as it was; empty where it has been folded.
    gain, error_bound : float or None
        Those of `normkit.FoldReport`, where it has been folded.
    """

    batch_norm: str
    layer: str | None = None
    reason: str = ""
    gain: float | None = None
    error_bound: float | None = None


@dataclass(frozen=True)
class FuseSummary:
    """What `fuse` has done; `print` shows it as a table.

    Attributes
    ----------
    batch_norms : tuple of BatchNormFate
        One for each call of a batch norm in the model.
    in_place : tuple of str
        Activations and residual additions that now write into their input, by their names in the trace.
    untraced : tuple of (str, str)
        Modules whose forward `torch.fx` cannot trace, with the reason: they are as they were, what is within them was
        looked at on its own.
    difference : float or None
        The largest difference of an output from the model's, over the largest output, on the example inputs; None
        without such inputs: nothing has been checked then.
    """

    batch_norms: tuple[BatchNormFate, ...]
    in_place: tuple[str, ...] = ()
    untraced: tuple[tuple[str, str], ...] = ()
    difference: float | None = None

    @property
    def folded(self) -> tuple[BatchNormFate, ...]:
        """The batch norms that are gone."""
        return tuple(fate for fate in self.batch_norms if fate.layer is not None)

    @property
    def left(self) -> tuple[BatchNormFate, ...]:
        """The batch norms that are as they were."""
        return tuple(fate for fate in self.batch_norms if fate.layer is None)

    def __str__(self) -> str:
        lines = [f"{len(self.folded)} of {len(self.batch_norms)} batch norms folded"]
        rows = [(f.batch_norm, str(f.layer), f"{f.gain:.3g}", f"{f.error_bound:.1e}") for f in self.folded]
        lines += _table([("batch norm", "folded into", "gain", "error bound"), *rows]) if rows else []
        if self.left:
            lines += ["left as they are", *_table((f.batch_norm, f.reason) for f in self.left)]
        if self.in_place:
            lines.append("in place: " + ", ".join(self.in_place))
        if self.untraced:
            lines += ["not traced", *_table((path or "the model itself", reason) for path, reason in self.untraced)]
        if self.difference is None:
            lines.append("not checked: no example inputs")
        else:
            lines.append(f"checked: outputs differ by {self.difference:.1e} of the largest")
        return "\n".join(lines)


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows with their columns aligned."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  " + "  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in padded]
