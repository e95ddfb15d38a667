"""Batch norm over the ranks of an MPI program (mpi_program.py); what does not need MPI is in test_sync.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("mpi_program.py")
RANKS = 3

if importlib.util.find_spec("mpi4py") is None:  # importing it would start MPI in this process
    pytest.skip("needs mpi4py", allow_module_level=True)
# That of the package mpich lies beside the interpreter.
MPIEXEC = shutil.which("mpiexec", path=sysconfig.get_path("scripts")) or shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec: pip install mpich")


def mpiexec(*what, program=PROGRAM):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parent)}
    command = [MPIEXEC, "-n", str(RANKS), sys.executable, "-m", "mpi4py", str(program), *what]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )


@pytest.mark.parametrize("what", [pytest.param("grid", marks=pytest.mark.slow), "layer", "shapes"])
def test_ranks(what):
    result = mpiexec(what)
    assert result.returncode == 0, result.stdout
    done = [line for line in result.stdout.splitlines() if line.endswith("done")]
    assert sorted(done) == [f"rank {rank} of {RANKS}: done" for rank in range(RANKS)], result.stdout


def test_an_error_on_one_rank_ends_all():
    """Under `python -m mpi4py`, as the documentation advises."""
    result = mpiexec("one_rank_fails")
    assert result.returncode != 0
    assert "TypeError: batch_norm: weight must have the dtype of x" in result.stdout
    assert "done" not in result.stdout


def test_example_program():
    program = PROGRAM.parents[1] / "examples" / "sync_batch_norm.py"
    result = mpiexec(program=program)
    assert result.returncode == 0, result.stdout
    assert "the same averages, bit for bit: True" in result.stdout
    differences = [float(line.split(": ")[1]) for line in result.stdout.splitlines() if "difference" in line]
    assert len(differences) == 4 and max(differences) < 1e-5


def test_example():
    """That of the docstring, on a single rank."""
    code = "import doctest, normkit.mpi; assert doctest.testmod(normkit.mpi) == (0, 6)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
