"""Arrays on a GPU. What needs none, the kernels' arithmetic among it, is in tests/cpp/test_cuda.cpp."""

from __future__ import annotations

import numpy as np
import pytest

import normkit

torch = pytest.importorskip("torch")

if not normkit.build_info()["cuda"]:
    pytest.skip("built without CUDA (-C cmake.define.NORMKIT_CUDA=ON)", allow_module_level=True)
if not torch.cuda.is_available():
    pytest.skip("no GPU, or a PyTorch without CUDA", allow_module_level=True)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11, torch.float16: 4e-3, torch.bfloat16: 3e-2}
IMAGES = [
    (2, 8, 5, 7),
    (3, 6, 7, 7),
    (20, 8, 7, 7),
    (2, 64, 28, 28),
    (2, 128, 12, 12),  # last: a block asks for all but little of 48 KB
    (2, 36, 35, 35),
    (16, 32, 56, 56),
    (9, 2, 256, 96),
    (17, 4, 17, 19),
]
ROWS = [
    (7, 3),
    (5, 64),
    (9, 768),
    (1300, 1001),
    (37, 333),
    (70, 2051),
    (3, 4096),
    (70, 12288),
    (9, 20001),
    (2, 40000),
    (2, 300_000),
]


def by_extents(shape):
    return "x".join(map(str, shape))


def random(shape, dtype, seed=0, last=False):
    """Return the same numbers on the CPU and on the GPU, images in either memory order."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.5).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    return x, x.cuda()


def params(count, dtype):
    """Return a weight and a bias on both devices; float32 beside half precision."""
    dtype = torch.float32 if dtype.itemsize == 2 else dtype
    pairs = [random((count,), dtype, seed) for seed in (1, 2)]
    return [cpu for cpu, _ in pairs], [gpu for _, gpu in pairs]


def assert_close(gpu, cpu, dtype, factor=1.0):
    """Compare results of the GPU with the CPU's, relative to the largest of these."""
    gpu, cpu = (results if isinstance(results, tuple) else (results,) for results in (gpu, cpu))
    assert len(gpu) == len(cpu)
    for a, b in zip(gpu, cpu, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.is_cuda
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        a, b = a.cpu().double(), b.double()
        assert (a - b).abs().max() <= factor * TOLERANCE[dtype] * b.abs().max().clamp_min(1e-30)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ROWS, ids=by_extents)
@pytest.mark.parametrize("function", ["layer_norm", "rms_norm"])
def test_rows(function, shape, dtype):
    x, gx = random(shape, dtype)
    dy, gdy = random(shape, dtype, 3)
    (weight, bias), (gweight, gbias) = params(shape[1], dtype)
    given, ggiven = ((weight, bias), (gweight, gbias)) if function == "layer_norm" else ((weight,), (gweight,))
    run, back = getattr(normkit, function), getattr(normkit, f"{function}_backward")
    y, *stats = run(x, *given, return_stats=True)
    gy, *gstats = run(gx, *ggiven, return_stats=True)
    assert_close((gy, *gstats), (y, *stats), dtype)
    assert_close(back(gdy, gx, *gstats, gweight), back(dy, x, *stats, weight), dtype, 4)
    added, gadded = (getattr(normkit, f"add_{function}")(*args) for args in ((x, dy, *given), (gx, gdy, *ggiven)))
    assert_close(gadded, added, dtype)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", IMAGES, ids=by_extents)
@pytest.mark.parametrize("function", ["batch_norm", "group_norm", "instance_norm"])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_images(function, shape, dtype, last, activation):
    x, gx = random(shape, dtype, 0, last)
    dy, gdy = random(shape, dtype, 3, last)
    (weight, bias), (gweight, gbias) = params(shape[1], dtype)
    first = {"batch_norm": {"state": None, "training": True}, "group_norm": {"num_groups": 2}, "instance_norm": {}}[
        function
    ]
    run, back = getattr(normkit, function), getattr(normkit, f"{function}_backward")
    options = {"activation": activation, "return_stats": True}
    y, *stats = run(x, weight=weight, bias=bias, **first, **options)
    gy, *gstats = run(gx, weight=gweight, bias=gbias, **first, **options)
    assert_close((gy, *gstats), (y, *stats), dtype)
    split = {"num_groups": 2} if function == "group_norm" else {}
    undo = {
        "activation": activation,
        "bias": bias if activation == "silu" else None,
        "y": y if activation == "relu" else None,
    }
    gundo = {
        "activation": activation,
        "bias": gbias if activation == "silu" else None,
        "y": y.cuda() if activation == "relu" else None,  # the same signs: where it is nearly 0, they need not be ours
    }
    results = back(dy, x, *stats, weight=weight, **split, **undo)
    gresults = back(gdy, gx, *gstats, weight=gweight, **split, **gundo)
    assert_close(gresults, results, dtype, 8)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_state_lives_where_it_is_used(last):
    cpu, gpu = normkit.BatchNormState(8), normkit.BatchNormState(8)
    for seed in range(3):
        x, gx = random((4, 8, 6, 6), torch.float32, seed, last)
        if seed == 1:
            x[0, 0, 0, 0] = gx[0, 0, 0, 0] = float("nan")
        normkit.batch_norm(x, cpu, training=True)
        normkit.batch_norm(gx, gpu, training=True)
    assert gpu.num_batches_tracked == 2
    assert gpu.skipped == 1
    np.testing.assert_allclose(gpu.running_mean, cpu.running_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gpu.running_var, cpu.running_var, rtol=1e-5)
    assert not gpu.running_mean.flags.writeable
    assert_close(normkit.batch_norm(gx, gpu), normkit.batch_norm(x, cpu), torch.float32)
    again = normkit.BatchNormState(8)
    again.load_state_dict(gpu.state_dict())
    np.testing.assert_array_equal(again.running_mean, gpu.running_mean)


def test_masks_and_lengths():
    x, gx = random((4, 8, 10), torch.float32)
    mask = torch.rand(4, 10) > 0.3
    lengths = [10, 0, 3, 7]
    for options, goptions in (({"mask": mask}, {"mask": mask.cuda()}), ({"lengths": lengths},) * 2):
        y = normkit.batch_norm(x, None, training=True, **options)
        assert_close(normkit.batch_norm(gx, None, training=True, **goptions), y, torch.float32)


@pytest.mark.parametrize("shape, axis", [((37, 11), -1), ((5, 64), -1), ((3, 8, 7, 7), (2, 3)), ((9, 300), 0)])
def test_masks_of_single_values(shape, axis):
    x, gx = random(shape, torch.float32)
    mask = torch.rand(shape) > 0.3
    assert_close(
        normkit.standardize(gx, axis=axis, mask=mask.cuda()),
        normkit.standardize(x, axis=axis, mask=mask),
        torch.float32,
    )


def test_poisoned_out_and_in_place():
    x, gx = random((64, 768), torch.bfloat16)
    out = torch.full_like(gx, float("nan"))
    assert normkit.layer_norm(gx, out=out) is out
    assert_close(out, normkit.layer_norm(x), torch.bfloat16)
    same = gx.clone()
    normkit.layer_norm(same, out=same)
    assert torch.equal(same, out)


@pytest.mark.parametrize("shape", ROWS, ids=by_extents)
def test_bits_of_a_row_depend_on_it_alone(shape):
    _, x = random(shape, torch.float32)
    y = normkit.layer_norm(x)
    assert torch.equal(normkit.layer_norm(x[-1:].contiguous()), y[-1:])
    assert all(torch.equal(normkit.layer_norm(x), y) for _ in range(20))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(70, 333), (300, 1001), (9, 20001), (6, 768)], ids=by_extents)
def test_bits_do_not_depend_on_where_rows_begin(shape, dtype):
    def placed(first, tensor):
        memory = torch.empty(tensor.numel() + first, dtype=dtype, device="cuda")
        return memory[first:].view(shape).copy_(tensor)

    (_, weight), (_, bias) = (random((shape[1],), dtype, seed) for seed in (1, 2))
    (_, numbers), (_, gradients) = (random(shape, dtype, seed) for seed in (0, 3))
    expected = None
    for first in (0, 1, 3):
        x, dy, out = (placed(first, tensor) for tensor in (numbers, gradients, numbers))
        _, mean, rstd = normkit.layer_norm(x, weight, bias, return_stats=True, out=out)
        results = (out, *normkit.layer_norm_backward(dy, x, mean, rstd, weight), *normkit.add_rms_norm(x, dy, weight))
        expected = expected or results
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_work_is_queued_on_the_current_stream():
    _, x = random((4096, 4096), torch.float32)
    normkit.layer_norm(x)  # to load a kernel takes a while
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.mul_(2.0)
        y = normkit.layer_norm(x)
        assert not stream.query()  # nobody has waited
    stream.synchronize()
    torch.testing.assert_close(y, torch.nn.functional.layer_norm(x, (4096,)), rtol=1e-4, atol=1e-4)


def test_graph_capture():
    _, x = random((8, 16, 12, 12), torch.float32)
    state = normkit.BatchNormState(16)
    normkit.batch_norm(x, state, training=True)  # its averages move to the GPU before, not within
    tracked = state.num_batches_tracked
    out = torch.empty_like(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        normkit.batch_norm(x, state, training=True, out=out)
    for seed in (5, 6):
        _, fresh = random(tuple(x.shape), torch.float32, seed)
        x.copy_(fresh)
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(out, normkit.batch_norm(fresh, None, training=True))
    assert state.num_batches_tracked == tracked + 2


def test_more_elements_than_32_bits_count():
    free, _ = torch.cuda.mem_get_info()
    if free < 12 << 30:
        pytest.skip("needs 12 GiB of GPU memory")
    x = torch.ones((1 << 21, 1025), dtype=torch.bfloat16, device="cuda")
    x[-1, ::2] = 3.0
    y = normkit.layer_norm(x, out=x)
    assert float(y[0].float().abs().max()) == 0.0
    assert abs(float(y[-1].float().std()) - 1.0) < 0.01


def test_devices_are_not_mixed():
    x, gx = random((4, 8), torch.float32)
    with pytest.raises(TypeError, match="all arrays must be on one device; got x on GPU 0 and another on the CPU"):
        normkit.layer_norm(gx, torch.ones(8))
    with pytest.raises(TypeError, match="got x on the CPU and another on GPU 0"):
        normkit.layer_norm(x, torch.ones(8, device="cuda"))
    with pytest.raises(ValueError, match="would have to wait for the GPU"):
        normkit.batch_norm(gx, normkit.BatchNormState(8, on_nonfinite="raise"), training=True)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_device_than_the_current_one():
    x = torch.randn(16, 64, device="cuda:1")
    y = normkit.layer_norm(x)
    assert y.device == x.device
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(y, torch.nn.functional.layer_norm(x, (64,)), rtol=1e-5, atol=1e-5)
    mask = torch.ones(16, dtype=torch.bool, device=x.device)
    masked = normkit.batch_norm(x, None, training=True, mask=mask)
    torch.testing.assert_close(masked, normkit.batch_norm(x, None, training=True), rtol=1e-5, atol=1e-5)


def test_jax():
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("a JAX without GPU")
    host = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    for _ in range(20):  # memory changes hands
        x = jax.numpy.asarray(host) * 2
        y, mean, rstd = normkit.layer_norm(x, return_stats=True)
        dx, _, _ = normkit.layer_norm_backward(y, x, mean, rstd)
        assert isinstance(y, jax.Array) and isinstance(mean, jax.Array) and isinstance(dx, jax.Array)
        np.testing.assert_allclose(np.asarray(y), normkit.layer_norm(2 * host), atol=1e-5)
        assert float(jax.numpy.abs(dx + y).max()) > 0.0


def test_cupy():
    cupy = pytest.importorskip("cupy")
    x = cupy.asarray(np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32))
    y, mean, _ = normkit.layer_norm(x, return_stats=True)
    assert isinstance(y, cupy.ndarray)
    assert isinstance(mean, cupy.ndarray)
    np.testing.assert_allclose(y.get(), normkit.layer_norm(x.get()), atol=1e-5)
