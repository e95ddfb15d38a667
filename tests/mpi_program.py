"""What test_mpi.py runs on several ranks: `mpiexec -n 3 python -m mpi4py tests/mpi_program.py <what>`."""

from __future__ import annotations

import sys

import numpy as np
from mpi4py import MPI

import normkit
import normkit.mpi
from groups import GRID, Case

comm = MPI.COMM_WORLD
sync = normkit.mpi.sync(comm)


def run(case):
    """The case on this rank; checked on the first, where all results come together."""
    results = comm.gather(case.work(comm.rank, sync))
    if comm.rank == 0:
        case.check(results)


def grid():
    """Every rank with a number of threads of its own."""
    normkit.set_num_threads(comm.rank + 1)
    for name, case in GRID.items():
        if case.dtype == "float32":
            if comm.rank == 0:
                print(name)
            run(case)


def layer():
    """Ranks that train on parts of the same batches, none of them all the time, hold the same averages."""
    norm = normkit.BatchNorm(4, sync=sync)
    for step in range(5):
        samples = (comm.rank + step) % comm.size
        x = np.random.default_rng((step, comm.rank)).normal(3, 2, (samples, 4, 9)).astype(np.float32)
        norm.backward(norm(x))
    states = comm.allgather({key: value.tobytes() for key, value in norm.state_dict().items()})
    assert all(state == states[0] for state in states)
    assert norm.state.num_batches_tracked == 5


def shapes():
    """Ranks that do not agree all get to know."""
    x = np.ones((2, 3 + comm.rank % 2), np.float32)
    try:
        normkit.batch_norm(x, None, training=True, sync=sync)
    except ValueError as error:
        assert "one shape on every rank; got, in their order, [(3,), (4,), (3,)]" in str(error)  # noqa: PT017
    else:
        raise AssertionError("nothing raised")
    run(Case((7, 5), (2, 4)))  # and the group goes on


def one_rank_fails():
    """Before the others hear of it: they would wait for ever."""
    x = np.ones((2, 3), np.float64 if comm.rank == 1 else np.float32)
    normkit.batch_norm(x, None, np.ones(3, np.float32), training=True, sync=sync)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.stdout.write(f"rank {comm.rank} of {comm.size}: done\n")  # at once: ranks share what they write to
