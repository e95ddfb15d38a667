"""
Where the modules' work on tensors of a GPU goes, where there is no GPU: `pytest -p torch_on_gpu`, with an extension
whose GPU is the host. What they compute is for the tests of the modules, run so.
"""

from __future__ import annotations

import gc
import sys

import pytest

torch = pytest.importorskip("torch")

if "torch_on_gpu" not in sys.modules:
    pytest.skip("PyTorch's tensors are on the host (pytest -p torch_on_gpu)", allow_module_level=True)

from device_arrays import emulated_gpu  # noqa: E402
from torch_cases import CASES, IDS, assert_steps_agree, pair, refuse_pytorch, sample, step  # noqa: E402
from torch_on_gpu import PLACE  # noqa: E402

gpu = emulated_gpu()


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """Tensors are on the first GPU. What is allocated there by a call is released, and nobody waits."""
    for name, value in (("index", 0), ("stream", 7), ("on_host", ())):
        monkeypatch.setattr(PLACE, name, value)
    before = gpu.allocations, gpu.waits_for_stream, gpu.waits_for_device
    yield
    gc.collect()
    assert (gpu.allocations, gpu.waits_for_stream, gpu.waits_for_device) == before


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_on_the_gpu_and_the_current_stream(case, train, monkeypatch):
    """Both passes, with no operation of PyTorch's in their place."""
    name, args, options, shape = case
    ours, _ = pair(name, args, options, train=train)
    x, dy = sample(shape)
    refuse_pytorch(monkeypatch)
    for index, stream in ((0, 11), (1, 11), (1, 12)):
        PLACE.index, PLACE.stream = index, stream
        inputs = x.detach().requires_grad_()
        launches = gpu.launches
        y = ours(inputs)
        assert gpu.launches > launches
        assert (gpu.stream, gpu.device) == (stream, index)
        launches, gpu.stream, gpu.device = gpu.launches, 0, 0
        y.backward(dy)
        assert gpu.launches > launches
        assert (gpu.stream, gpu.device) == (stream, index)


@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_a_mixture_of_devices_is_for_pytorch(name):
    ours, theirs = pair("BatchNorm2d", (6,), {})
    PLACE.on_host = (getattr(ours, name).data_ptr(),)
    x, dy = sample((4, 6, 3, 5))
    launches = gpu.launches
    assert_steps_agree(step(ours, x, dy), step(theirs, x, dy))
    assert gpu.launches == launches
