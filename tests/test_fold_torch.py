"""fold_batch_norm on PyTorch's layers and tensors."""

from __future__ import annotations

import numpy as np
import pytest

import convolutions
import normkit
from convolutions import KINDS, image, statistics


def torch_layer(torch, kind, bias, dtype):
    if not kind.kernel:
        return torch.nn.Linear(kind.inputs, kind.outputs, bias=bias, dtype=dtype)
    name = f"Conv{'Transpose' if kind.transposed else ''}{len(kind.kernel)}d"
    return getattr(torch.nn, name)(
        kind.inputs, kind.outputs, kind.kernel, kind.stride, kind.padding, groups=kind.groups, bias=bias, dtype=dtype
    )


@pytest.mark.parametrize("name", [name for name in KINDS if name != "linear (I, O)"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_layers(name, bias, affine, channels_last, dtype, torch):
    kind, dtype = KINDS[name], getattr(torch, dtype)
    torch.manual_seed(0)
    layer = torch_layer(torch, kind, bias, dtype)
    if channels_last and layer.weight.dim() == 4:
        layer = layer.to(memory_format=torch.channels_last)
    norm = getattr(torch.nn, f"BatchNorm{max(len(kind.kernel), 1)}d")(kind.outputs, affine=affine, dtype=dtype).eval()
    mean, var = (torch.from_numpy(a).to(dtype) for a in statistics(kind.outputs))
    norm.load_state_dict(dict(norm.state_dict(), running_mean=mean, running_var=var))
    parameters = ()
    if affine:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        parameters = norm.weight.detach(), norm.bias.detach()
    weight, old_bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    folded_weight, folded_bias = normkit.fold_batch_norm(weight, old_bias, (mean, var), *parameters, **kind.options)
    assert type(folded_weight) is torch.Tensor
    assert folded_weight.stride() == weight.stride()
    assert (folded_weight.dtype, folded_bias.dtype) == (dtype, dtype)
    x = torch.from_numpy(image(kind)).to(dtype)
    with torch.no_grad():
        expected = norm(layer(x))
        layer.weight.copy_(folded_weight)
        layer.bias = torch.nn.Parameter(folded_bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=(1e-5 if dtype == torch.float32 else 1e-13) * 30)
    # The oracle is a convolution too.
    y = convolutions.run(x.double().numpy(), folded_weight.double().numpy(), folded_bias.double().numpy(), kind)
    torch.testing.assert_close(layer(x).detach().double(), torch.from_numpy(y.astype(np.float64)), rtol=1e-4, atol=1e-4)


def test_torch_folds_grouped_transposed_convolutions_wrongly(torch):
    """If this fails, PyTorch has been mended: what is of interest is that ours is right."""
    kind = KINDS["grouped transposed"]
    torch.manual_seed(0)
    layer, norm = torch_layer(torch, kind, True, torch.float32).eval(), torch.nn.BatchNorm2d(kind.outputs).eval()
    norm.running_var.copy_(torch.from_numpy(statistics(kind.outputs)[1]) + 0.1)
    x = torch.randn(2, kind.inputs, 5, 5)
    expected = norm(layer(x))
    with pytest.raises(RuntimeError, match="size of tensor"):
        torch.nn.utils.fusion.fuse_conv_bn_eval(layer, norm, transpose=True)
    weight, bias = normkit.fold_batch_norm(
        layer.weight.detach(), layer.bias.detach(), (norm.running_mean, norm.running_var), norm.weight.detach(),
        norm.bias.detach(), **kind.options,
    )  # fmt: skip
    y = torch.nn.functional.conv_transpose2d(x, weight, bias, stride=2, padding=1, groups=2)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_torch_bfloat16(torch):
    weight = torch.randn(3, 4, dtype=torch.bfloat16)
    folded, bias = normkit.fold_batch_norm(weight, None, (torch.zeros(3), torch.full((3,), 3.0)), eps=1.0)
    assert folded.dtype == bias.dtype == torch.bfloat16
    assert torch.equal(folded, weight / 2)


def test_torch_parameters_are_to_be_detached(torch):
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"weight must not require a gradient.*weight\.detach\(\)"):
        normkit.fold_batch_norm(layer.weight, layer.bias, (torch.zeros(2), torch.ones(2)))
