"""From PyTorch's modules to ours in a model that is there already, and back."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch

from normkit.torch.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm
from normkit.torch.samples import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkit.torch.trailing import LayerNorm, RMSNorm

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

OURS: tuple[type[torch.nn.Module], ...] = (
    BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d,
    GroupNorm, LayerNorm, RMSNorm,
)  # fmt: skip
CONVERTED: dict[Any, type[torch.nn.Module]] = {getattr(torch.nn, ours.__name__): ours for ours in OURS}
REVERTED: dict[Any, type[torch.nn.Module]] = {ours: theirs for theirs, ours in CONVERTED.items()}


def convert(model: ModuleT) -> ModuleT:
    """
    Let PyTorch's normalization modules in `model` run on normkit's kernels.

    The modules stay the same objects, with their parameters, buffers, hooks, mode and place in the model, and only
    change their class: optimizers, references to them and checkpoints go on as they are, and a module in several
    places is converted in all of them.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; it may be such a module itself.

    Returns
    -------
    torch.nn.Module
        `model`.

    See Also
    --------
    revert : The way back.

    Notes
    -----
    `BatchNorm1d`, `BatchNorm2d`, `BatchNorm3d`, `GroupNorm`, `InstanceNorm1d`, `InstanceNorm2d`, `InstanceNorm3d`,
    `LayerNorm` and `RMSNorm` are converted. Subclasses of them, lazy modules, parametrized ones and `SyncBatchNorm` are
    left as they are, since their forward may do more.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
    >>> convert(model) is model
    True
    >>> type(model[1])
    <class 'normkit.torch.trailing.LayerNorm'>
    """
    return _change(model, CONVERTED)


def revert(model: ModuleT) -> ModuleT:
    """
    Undo `convert`: make PyTorch's own modules of normkit's, for tools that know those alone.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; it may be such a module itself.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    ValueError
        A module has an activation, which PyTorch's would not have. Nothing has changed then.

    Examples
    --------
    >>> import torch
    >>> from normkit.torch import convert, revert
    >>> revert(convert(torch.nn.LayerNorm(8)))
    LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and type(module) in REVERTED and module.activation is not None:
            raise ValueError(
                f"revert: a module must have no activation; got {module.activation!r} in {name or 'the model itself'}"
            )
    return _change(model, REVERTED)


def _scriptable(module: Any) -> torch.nn.Module:
    """Return what `torch.jit.script` is to compile: PyTorch's module with the same parameters and buffers."""
    theirs = copy.copy(module)
    return revert(theirs)


for _ours in OURS:
    _ours.__prepare_scriptable__ = _scriptable


def _change(model: ModuleT, classes: dict[Any, type[torch.nn.Module]]) -> ModuleT:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model
