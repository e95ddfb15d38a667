"""Batch normalization over the processes of an MPI communicator.

Every rank normalizes its own part of a batch with the statistics of the whole. Needs mpi4py (extra ``mpi``) and nothing
else: whatever gathers bytes from all ranks can stand in for a communicator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from normkit._core import Moments

__all__ = ["sync"]


@dataclass(frozen=True)
class Sync:
    """The `Moments` of this rank become those of all, merged in the order of ranks: by every rank, so alike in each."""

    comm: Any

    def __call__(self, moments: Moments) -> Moments:
        """Gather, and merge."""
        ranks = [Moments.from_bytes(data) for data in self.comm.allgather(moments.to_bytes())]
        shapes = [part.count.shape for part in ranks]
        if len(set(shapes)) > 1:
            raise ValueError(f"normkit.mpi: moments must have one shape on every rank; got, in their order, {shapes}")
        return reduce(Moments.merge, ranks)

    def __deepcopy__(self, memo: Any) -> Sync:
        """Return the same: copies of a layer belong to its group."""
        return self


def sync(comm: Any) -> Callable[[Moments], Moments]:
    """
    Make the ``sync=`` of `batch_norm`, `batch_norm_backward` and `normkit.layers.BatchNorm`.

    Ranks may have different numbers of values, or none. All of them get the same statistics, bit for bit: moments are
    gathered and merged in float64, in the order of ranks.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks that make up the group. It must not be used for anything else while a call is under way.

    Returns
    -------
    callable
        From the `Moments` of this rank to those of the group; a collective call, to be made by every rank.

    Raises
    ------
    TypeError
        `comm` is no communicator.
    ValueError
        When called: the moments of another rank have another shape. On every rank.

    Notes
    -----
    A rank that raises before the call, for a bad argument say, leaves the others waiting in theirs. Run programs with
    ``mpiexec -n 4 python -m mpi4py program.py``, and an error that nobody catches ends them all.

    Examples
    --------
    >>> import numpy as np
    >>> import normkit, normkit.mpi
    >>> from mpi4py import MPI
    >>> x = np.array([[1.0, 5.0], [3.0, 9.0]], dtype=np.float32)  # this rank's
    >>> state = normkit.BatchNormState(2)
    >>> normkit.batch_norm(x, state, training=True, eps=0.0, sync=normkit.mpi.sync(MPI.COMM_WORLD))
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """
    if not callable(getattr(comm, "allgather", None)):
        raise TypeError(f"normkit.mpi: comm must be a communicator of mpi4py; got {type(comm).__name__}")
    return Sync(comm)
