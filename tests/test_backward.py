"""Every backward pass against the oracle of gradients.py, over a grid of dtypes, layouts and sizes."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from cases import DTYPES, HALF, LAYOUTS
from reference import assert_close
from training import BY_CHANNEL, CENTRED, TRAINED, Trained, arguments, assert_gradients, dtypes, solved, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
each_normalizer = each("name", TRAINED)
SHAPES = ((3, 300), (300, 3), (2, 6, 20, 21), (4, 1, 9), (2, 1, 5, 5))


def few_shapes(name, layout, dtype):
    """The longest are left to the dense layout."""
    longest = 7000 if layout == "C" else 1000
    every = cases.cases(training.like(name), layout, dtype)
    return [shape for shape in every if shape in cases.FEW_SHAPES and np.prod(shape) < longest]


@each("layout", LAYOUTS)
@each_dtype
@each_normalizer
def test_grid(name, dtype, layout):
    """x, dy and weight in one layout, and in three different ones; nothing is written to any of them."""
    names = list(LAYOUTS)
    other, third = (names[(names.index(layout) + i) % len(names)] for i in (3, 5))
    for shape in few_shapes(name, layout, dtype):
        for x_layout, dy_layout, weight_layout in ((layout, layout, layout), (layout, other, third)):
            case = arguments(name, shape, dtype, None, (x_layout == "broadcast", dy_layout == "broadcast"))
            if weight_layout == "broadcast":
                weight_layout = "cropped"  # shared weights are another weight, and so another result
            blocks = [
                cases.arrange(array, where)
                for array, where in ((case.x, x_layout), (case.dy, dy_layout), (case.weight, weight_layout))
            ]
            before = [block.twin() for block in blocks]
            x, dy, weight = (block.view for block in blocks)
            gradients = case._replace(x=x, dy=dy, weight=weight).call()
            what = f"{name} {shape} of x {x_layout}, dy {dy_layout}, weight {weight_layout}"
            assert_gradients(gradients, case.expected, dtypes(x, weight), what)
            assert gradients[0].strides == np.empty_like(x).strides, what
            for block, twin in zip(blocks, before, strict=True):
                np.testing.assert_array_equal(block.memory, twin.memory, err_msg=what)
                assert not any(np.shares_memory(gradient, block.memory) for gradient in gradients)


@each("dtype", ["float32", "float64"])
@each_normalizer
def test_sizes(name, dtype):
    """Around the sizes of lanes and blocks, and sums of many terms."""
    for shape in cases.cases(training.like(name), "C", dtype):
        if shape in cases.FEW_SHAPES or (dtype == "float64" and np.prod(shape) > 7000):
            continue
        normalizer, kind = trained(name, shape), DTYPES[dtype]
        x, dy = cases.sample(shape, kind), training.upstream(shape, kind)
        case = solved(normalizer, x, dy, *training.parameters(normalizer, shape, kind))
        assert_gradients(case.call(), case.expected, dtypes(x, case.weight), f"{name} {shape}")


@each_dtype
@each_normalizer
def test_output_mask(name, dtype):
    """What is not asked for is None, and what is comes with the bits that it has among the others."""
    for shape in training.shapes(name, ((5, 70), (2, 6, 5, 7))):
        case = arguments(name, shape, dtype)
        every = case.call()
        for wanted in range(2 ** len(every)):
            mask = tuple(bool(wanted >> i & 1) for i in range(len(every)))
            some = case.call(output_mask=mask)
            assert len(some) == len(every)
            for asked, alone, among in zip(mask, some, every, strict=True):
                if asked:
                    np.testing.assert_array_equal(alone, among, err_msg=f"{name} {shape} {mask}")
                    assert alone.dtype == among.dtype
                else:
                    assert alone is None


@each_dtype
@each_normalizer
def test_without_weight(name, dtype):
    """No weight is a weight of ones; its gradient comes in the dtype of the statistics."""
    for shape in training.shapes(name, SHAPES):
        case = arguments(name, shape, dtype)
        case = solved(case.normalizer, case.x, case.dy, None, None)
        kind = cases.statistics_dtype(case.x.dtype)
        assert_gradients(case.call(), case.expected, (case.x.dtype, kind, kind), f"{name} {shape}")


@each("dtype", [name for name in DTYPES if name in HALF])
@each_normalizer
def test_float32_parameters(name, dtype):
    """Half precision data with float32 weights: their gradients are float32, and as accurate."""
    for shape in training.shapes(name, SHAPES):
        case = arguments(name, shape, dtype, "float32")
        assert_gradients(case.call(), case.expected, dtypes(case.x, case.weight), f"{name} {shape}")


@each_dtype
@each("name", BY_CHANNEL)
def test_bias_gives_its_dtype(name, dtype):
    """`bias=` says what the gradient of the bias is stored as; without it the weight does."""
    case = arguments(name, (2, 6, 5, 7), dtype)
    gradients = case.call(bias=case.bias.astype(cases.statistics_dtype(case.x.dtype)))
    assert gradients[2].dtype == cases.statistics_dtype(case.x.dtype)
    assert_close(gradients[2], case.expected.dbias, gradients[2].dtype, name)
    np.testing.assert_array_equal(gradients[0], case.call()[0])


# ------------------------------------------------------------------------------------------------- calling it


@each_dtype
@each_normalizer
def test_torch_tensors(name, dtype):
    """Tensors in, tensors out, with the bits that arrays give."""
    torch = pytest.importorskip("torch")
    case = arguments(name, (2, 6, 5, 7), dtype)

    def tensor(array):
        if array is None or array.dtype.name != "bfloat16":
            return None if array is None else torch.from_numpy(array.copy())
        return torch.from_numpy(array.astype(np.float32)).bfloat16()

    placed = case._replace(**{f: tensor(getattr(case, f)) for f in ("x", "dy", "mean", "rstd", "weight")})
    for gradient, array in zip(placed.call(), case.call(), strict=True):
        assert type(gradient) is torch.Tensor and not gradient.requires_grad
        assert str(gradient.dtype) == f"torch.{array.dtype.name}"
        np.testing.assert_array_equal(gradient.double().numpy(), array.astype(np.float64))


@each_normalizer
def test_arguments_by_position_or_name(name):
    """weight may be left out, be None, or be named."""
    case = arguments(name, (2, 6, 5, 7), "float32")
    function, options = getattr(normkit, f"{case.normalizer.function}_backward"), case.normalizer.own_options()
    names = {"dy": case.dy, "x": case.x, "mean": case.mean, "rstd": case.rstd, "weight": case.weight}
    if name not in CENTRED:
        del names["mean"]
    for by_name, expected in zip(function(**names, **options), case.call(), strict=True):
        np.testing.assert_array_equal(by_name, expected)
    del names["weight"]
    for without, expected in zip(function(**names, **options), case._replace(weight=None).call(), strict=True):
        np.testing.assert_array_equal(without, expected)


@each("memory", ["C", "channels_last"])
@each("name", [name for name in TRAINED if trained(name, (2, 2, 2)).operation.per_sample and "inference" not in name])
def test_alone_as_in_the_batch(name, memory):
    """dx of a sample by itself has the bits that it has in the batch."""
    for shape in training.shapes(name, ((5, 70), (4, 6, 5, 7), (3, 6, 40, 61))):
        case = arguments(name, shape, "float32")
        x, dy = (cases.arrange(array, memory).view for array in (case.x, case.dy))
        together = case._replace(x=x, dy=dy).call()[0]
        for part in (slice(0, 1), slice(1, 3), slice(None, None, 2)):
            alone = case._replace(x=x[part], dy=dy[part], mean=case.mean[part], rstd=case.rstd[part]).call()[0]
            np.testing.assert_array_equal(alone, together[part], err_msg=f"{name} {shape} {memory} {part}")


@each_normalizer
def test_threads(name):
    """The same bits for any number of threads."""
    large = ((700, 130), (20_011, 9), (4, 16, 57, 61), (3, 8, 30_011))
    for shape in training.shapes(name, large if not cases.QUICK else ((70, 30), (2, 6, 5, 7))):
        normalizer, x = trained(name, shape), cases.sample(shape, np.float32)
        dy, (weight, bias) = training.upstream(shape, np.float32), training.parameters(normalizer, shape, np.float32)
        *mean, rstd = normalizer.forward(x, weight, bias, return_stats=True)[1:]
        results = []
        for count in (1, 2, 3, 8):
            normkit.set_num_threads(count)
            results.append(normalizer.backward(dy, x, *(mean or [None]), rstd, weight))
        for other in results[1:]:
            for gradient, expected in zip(other, results[0], strict=True):
                np.testing.assert_array_equal(gradient, expected, err_msg=f"{name} {shape}")


@each("groups, channels, space", [(1, 5, (130, 70)), (6, 6, (3, 4)), (2, 74, (5, 5)), (3, 12, (41, 53)), (4, 8, (2,))])
@each("dtype", ["float32", "float64"])
def test_planes(dtype, groups, channels, space):
    """Groups of all channels, of one, of more than are folded side by side, of planes longer than a block and short
    ones; with gaps and without. On one thread and on more than there are groups."""
    shape = (2, channels, *space)
    normalizer = Trained("group_norm", cases.group_norm_of(1, lambda _: groups)(shape))
    x, dy = cases.sample(shape, DTYPES[dtype], 100.0, offset=30.0), training.upstream(shape, DTYPES[dtype])
    case = solved(normalizer, x, dy, *training.parameters(normalizer, shape, DTYPES[dtype]))
    for layout in ("C", "cropped", "strided"):
        x, dy = (cases.arrange(array, layout).view for array in (case.x, case.dy))
        results = []
        for count in (1, 13):
            normkit.set_num_threads(count)
            results.append(case._replace(x=x, dy=dy).call())
        assert_gradients(results[0], case.expected, dtypes(x, case.weight), f"{groups} of {shape} {layout}")
        for gradient, expected in zip(results[1], results[0], strict=True):
            np.testing.assert_array_equal(gradient, expected, err_msg=f"{groups} of {shape} {layout}")
