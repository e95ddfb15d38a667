"""Batch normalization of one batch that lies on several ranks.

    mpiexec -n 3 python -m mpi4py examples/sync_batch_norm.py

Each rank has a part of the batch, one of them none of it, and trains on the statistics of the whole. The first rank
compares with the batch in one piece.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

import normkit
import normkit.mpi

comm = MPI.COMM_WORLD
rng = np.random.default_rng(0)  # the same on every rank, which then takes its part
x, dy = rng.normal(5, 3, (2, 32, 16, 14, 14)).astype(np.float32)
cuts = np.sort(rng.integers(0, 32, comm.size - 1))
if comm.size > 2:
    cuts[1] = cuts[0]  # nothing for the second rank
part = np.split(np.arange(32), cuts)[comm.rank]

norm = normkit.BatchNorm(16, activation="relu", sync=normkit.mpi.sync(comm))
y = norm(x[part])
dx = norm.backward(dy[part])
# What is trained with: the parameters' gradients over all ranks. BatchNorm leaves this to whoever sums all others too.
total = {name: comm.allreduce(gradient) for name, gradient in norm.gradients().items()}

averages = comm.gather(norm.state.running_var.tobytes())
parts = comm.gather((y, dx))
if comm.rank == 0:
    whole = normkit.BatchNorm(16, activation="relu")
    expected = whole(x), whole.backward(dy)
    print("samples per rank:", [len(y) for y, _ in parts])
    print("the same averages, bit for bit:", len(set(averages)) == 1)
    for name, joined, wanted in zip(("y", "dx"), zip(*parts, strict=True), expected, strict=True):
        print(f"largest difference of {name}: {abs(np.concatenate(joined) - wanted).max():.1e}")
    for name, gradient in whole.gradients().items():
        print(f"relative difference of the gradient of {name}: {abs(total[name] / gradient - 1).max():.1e}")
