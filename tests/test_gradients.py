"""The oracle of gradients.py against finite differences and PyTorch's autograd, and normkit against PyTorch's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cases
import training
from gradients import Problem
from reference import Wide, widen, working_eps
from training import TRAINED, trained

each = pytest.mark.parametrize
of_the_oracle = pytest.mark.skipif(cases.QUICK, reason="quick run: nothing of normkit is called")
OPERANDS = ("x", "weight", "bias", "residual")
ACTIVATIONS = (None, "relu", "silu")


# ---------------------------------------------------------------------------------------------- finite differences


def differences(problem: Problem, dy, operand):
    """Central differences of sum(dy * y) with respect to each element of one operand."""
    loss = lambda values: (widen(dy) * problem.but(**{operand: values}).forward().y).sum()  # noqa: E731
    values, step = np.array(getattr(problem, operand), np.float64), 2.0**-18
    slopes = np.zeros(values.shape, Wide)
    for at in np.ndindex(values.shape):
        centre = values[at]
        values[at] = centre + step
        above = loss(values)
        values[at] = centre - step
        slopes[at] = (above - loss(values)) / (2 * Wide(step))
        values[at] = centre
    return slopes


def operands(name, shape, masked, activation, with_residual):
    normalizer = trained(name, shape)
    x = cases.sample(shape, np.float32).astype(np.float64)  # so that a step is added exactly
    weight, bias = training.parameters(normalizer, shape, np.float32)
    mask = training.half_valid(training.mask_shape(normalizer, shape)) if masked else None
    residual = cases.sample(shape, np.float32, "residual") if with_residual else None
    problem = normalizer.problem(x, weight, bias, mask, residual=residual, activation=activation)
    return problem, training.upstream(shape, np.float64)


@of_the_oracle
@each("masked", [False, True])
@each("name", TRAINED)
def test_oracle_against_finite_differences(name, masked):
    """Every gradient of every normalizer, through every activation, with and without a residual."""
    for shape in training.shapes(name, ((3, 4), (2, 4, 3), (2, 4, 2, 2))):
        for activation, with_residual in itertools.product(ACTIVATIONS, (False, True)):
            problem, dy = operands(name, shape, masked, activation, with_residual)
            gradients = problem.backward(dy)
            for operand in OPERANDS:
                if getattr(problem, operand) is None:
                    continue
                expected = differences(problem, dy, operand)
                actual = getattr(gradients, f"d{operand}").y
                what = f"d{operand} of {name} {shape} {activation}"
                np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-7, err_msg=what)


@of_the_oracle
def test_oracle_without_statistics_of_its_own():
    """A weight of all ones and a mask of all True are no weight and no mask; what is masked does not matter."""
    x, dy = cases.sample((3, 4, 5), np.float64), training.upstream((3, 4, 5), np.float64)
    plain = Problem(x, (0, 2), (1,), eps=1e-3)
    for same in (plain.but(weight=np.ones(4)), plain.but(mask=True), plain.but(bias=np.zeros(4))):
        np.testing.assert_array_equal(same.forward().y, plain.forward().y)
        np.testing.assert_array_equal(same.backward(dy).dx.y, plain.backward(dy).dx.y)
    mask = training.half_valid((3, 1, 5))
    clean = plain.but(mask=mask)
    dirty = clean.but(x=np.where(mask, x, np.nan))
    np.testing.assert_array_equal(dirty.forward().y, clean.forward().y)
    np.testing.assert_array_equal(dirty.backward(np.where(mask, dy, np.inf)).dx.y, clean.backward(dy).dx.y)
    without = plain.but(x=np.moveaxis(x, 1, 2)[mask[:, 0]], reduced=(0,))  # the valid positions alone
    np.testing.assert_allclose(np.moveaxis(clean.forward().y, 1, 2)[mask[:, 0]], without.forward().y, rtol=1e-15)


@of_the_oracle
def test_oracle_is_that_of_the_forward_pass():
    """Without mask, residual and activation it answers as reference.normalize does."""
    for name in TRAINED:
        for shape in training.shapes(name, ((4, 6), (3, 4, 5), (2, 6, 5, 7), (2, 4, 3, 5, 2))):
            normalizer = trained(name, shape)
            x = cases.sample(shape, np.float32)
            weight, bias = training.parameters(normalizer, shape, np.float32)
            problem = normalizer.problem(x, weight, bias)
            theirs = normalizer.operation.expected(x, problem.weight, bias, problem.given)
            for own, other in zip(problem.forward(), theirs, strict=True):
                np.testing.assert_allclose(own, other, rtol=1e-15, atol=1e-17, err_msg=f"{name} {shape}")


# --------------------------------------------------------------------------------------------------------- PyTorch

SHAPES = ((8, 6), (4, 6, 17), (3, 6, 5, 7), (2, 6, 3, 5, 4))
# Besides normkit's roundings those of PyTorch's sums, which are not as careful.
TOLERANCE = {"float32": 20, "float64": 20}


def peer(torch, normalizer, x, weight, bias):
    """The forward pass by torch.nn.functional, on tensors."""
    functional, function, channel = torch.nn.functional, normalizer.function, normalizer.channel
    if channel is None:  # which knows trailing axes only
        own = normalizer.operation.reduced
        moved = torch.movedim(x, sorted(own), tuple(range(-len(own), 0)))
        extent = moved.shape[x.dim() - len(own) :]
        if function == "layer_norm":
            y = functional.layer_norm(moved, extent, weight, bias, eps=1e-3)
        else:
            y = functional.rms_norm(moved, extent, weight + normalizer.offset, eps=1e-3)
        return torch.movedim(y, tuple(range(-len(own), 0)), sorted(own))
    moved = torch.movedim(x, channel, 1)
    if function == "group_norm":
        y = functional.group_norm(moved, normalizer.operation.split[1], weight, bias, eps=1e-3)
    elif function == "instance_norm":
        y = functional.instance_norm(moved, weight=weight, bias=bias, eps=1e-3)
    else:
        kind = cases.statistics_dtype(x.numpy(force=True).dtype)
        given = [torch.from_numpy(a) for a in cases.running_statistics(moved.shape[1], kind)]
        y = functional.batch_norm(moved, *given, weight, bias, training=not normalizer.operation.given, eps=1e-3)
    return torch.movedim(y, 1, channel)


def peer_gradients(torch, normalizer, x, dy, weight, bias, residual=None, activation=None):
    """dx, dweight, dbias, dresidual by autograd, as many as there are operands."""
    leaves = [torch.tensor(np.array(a), requires_grad=True) for a in (x, weight, bias, residual) if a is not None]
    x, weight, *rest = leaves
    bias = rest.pop(0) if bias is not None else None
    y = peer(torch, normalizer, x, weight, bias)
    y = y + rest[0] if rest else y
    y = getattr(torch.nn.functional, activation)(y) if activation else y
    y.backward(torch.from_numpy(np.array(dy)))
    return [leaf.grad.numpy() for leaf in leaves]


def arrays(normalizer, shape, dtype, layout="C"):
    x = cases.arrange(cases.sample(shape, dtype), layout).view
    dy = cases.arrange(training.upstream(shape, dtype), layout).view
    return x, dy, *training.parameters(normalizer, shape, dtype)


def assert_as_peer(actual, peers, expected, dtype, what):
    """Apart by a few units of the sum of magnitudes that the oracle reports."""
    for label, array, other in zip(training.LABELS[: len(actual)], actual, peers, strict=True):
        size = getattr(expected, label).terms
        off = abs(widen(array) - widen(other)) / (size + np.finfo(dtype).tiny)
        assert off.max() <= TOLERANCE[dtype.name] * working_eps(dtype), f"{label} of {what}: {off.max()}"


@of_the_oracle
@each("activation", ACTIVATIONS)
@each("name", TRAINED)
def test_oracle_against_autograd(name, activation, torch):
    for shape in training.shapes(name, SHAPES[:3]):
        normalizer = trained(name, shape)
        x, dy, weight, bias = arrays(normalizer, shape, np.dtype("float64"))
        for residual in (None, cases.sample(shape, np.float64, "residual")):
            expected = normalizer.problem(x, weight, bias, residual=residual, activation=activation).backward(dy)
            peers = peer_gradients(torch, normalizer, x, dy, weight, bias, residual, activation)
            labels = [label for label in training.LABELS if label != "dbias" or bias is not None]
            own = [getattr(expected, label).y for label in labels[: len(peers)]]
            for label, ours, theirs in zip(labels, own, peers, strict=False):
                size = float(np.max(getattr(expected, label).terms))
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14 * size, err_msg=f"{label} {name} {shape}")


@each("layout", ["C", "channels_last"])
@each("dtype", TOLERANCE)
@each("name", TRAINED)
def test_normkit_against_autograd(name, dtype, layout, torch):
    """With the statistics that normkit's own forward pass returns."""
    for shape in training.shapes(name, SHAPES):
        normalizer, kind = trained(name, shape), np.dtype(dtype)
        x, dy, weight, bias = arrays(normalizer, shape, kind, layout)
        *mean, rstd = normalizer.forward(x, weight, bias, return_stats=True)[1:]
        actual = normalizer.backward(dy, x, *(mean or [None]), rstd, weight)
        peers = peer_gradients(torch, normalizer, x, dy, weight, bias)
        expected = normalizer.problem(x, weight, bias).backward(dy)
        assert_as_peer(actual, peers, expected, kind, f"{name} {shape} {layout}")


@each("dtype", TOLERANCE)
def test_masked_batch_norm_against_autograd(dtype, torch):
    """A masked batch is to batch_norm what the valid rows alone are to PyTorch."""
    shape, kind = (4, 6, 33), np.dtype(dtype)
    normalizer = trained("batch_norm(training)", shape)
    x, dy, weight, bias = arrays(normalizer, shape, kind)
    mask = training.half_valid((4, 33))
    *_, mean, rstd = normalizer.forward(x, weight, bias, mask=mask, return_stats=True)
    dx, dweight, dbias = normalizer.backward(dy, x, mean, rstd, weight, mask=mask)
    rows = [np.moveaxis(a, 1, -1)[mask] for a in (x, dy)]
    peers = peer_gradients(torch, trained("batch_norm(training)", rows[0].shape), *rows, weight, bias)
    expected = normalizer.problem(x, weight, bias, mask).backward(dy)
    whole = np.zeros((4, 33, 6), kind)
    whole[mask] = peers[0]
    assert_as_peer((dx, dweight, dbias), (np.moveaxis(whole, -1, 1), *peers[1:]), expected, kind, "masked batch_norm")
