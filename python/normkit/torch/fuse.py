"""Batch norms of a PyTorch model in evaluation folded into the layers before them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from normkit.torch.fuse_fold import Folder
from normkit.torch.fuse_in_place import write_in_place
from normkit.torch.fuse_summary import FuseSummary
from normkit.torch.fuse_trace import Traces, trace

__all__ = ["fuse"]

# How far outputs may be off, over the largest of them, when nothing is said: some hundred roundings.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.2}


def fuse(
    model: Any, example_inputs: Any = None, *, inplace: bool = False, rtol: float | None = None
) -> tuple[Any, FuseSummary]:
    """Fold the batch norms of a model in evaluation into the convolutions and linear layers before them.

    The model is traced by `torch.fx`; where that fails, its largest parts that can be traced are. A batch norm goes
    where it alone uses the output of a `Conv1d`, `2d`, `3d`, `ConvTranspose1d`, `2d`, `3d` or `Linear`, by
    `normkit.fold_batch_norm`. ReLUs after such layers, and residual additions, then write into their input where
    nothing else uses it. Whatever is left as it is, is in the summary with the reason.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, it and all that it contains.
    example_inputs : tensor, sequence or dict, optional
        What the model takes: one argument, several, or named ones. The new model's outputs are compared with the
        model's. Without it nothing is checked, no batch norm is folded into a `Linear` (which is right only for inputs
        of two axes), and no addition is done in place (which is right only for terms of one shape).
    inplace : bool, default False
        Change the model itself and return it: layers get their new parameters, and batch norms that are gone become
        `torch.nn.Identity`. Its code stays, so that nothing is done in place. Otherwise the model is not changed, and
        the result is a `torch.fx.GraphModule` with parameters of its own, or where parts could not be traced a copy of
        the model with such parts.
    rtol : float, optional
        How far an output may be off on the example inputs, over the largest output. None stands for 1e-4 in float32,
        1e-10 in float64, 0.05 in float16 and 0.2 in bfloat16: the largest for its dtype and those of the parameters.

    Returns
    -------
    model : torch.nn.Module
        That does the same.
    summary : FuseSummary
        What has been folded and what not, and why; to be printed.

    Raises
    ------
    TypeError
        `model` is no module.
    ValueError
        Some module is in training mode, or nothing can be traced.
    RuntimeError
        Outputs differ by more than `rtol`: the model, if `inplace`, is what it was.

    Examples
    --------
    >>> import torch, normkit.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    >>> fused, summary = normkit.torch.fuse(model, torch.ones(1, 3, 8, 8))
    >>> [(fate.batch_norm, fate.layer) for fate in summary.folded], summary.in_place
    ([('1', '0')], ('_2',))
    """
    _check(model)
    args, kwargs = _arguments(example_inputs)
    known = example_inputs is not None
    if not inplace:
        model = copy.deepcopy(model)
    expected, ranks = _run_and_look(model, args, kwargs) if known else (None, {})
    traces = trace(model, args, kwargs)
    if not traces.regions:
        path, reason = (*traces.untraced, ("", "there are no modules in it"))[0]
        raise ValueError(f"fuse: a part of model must be traceable by torch.fx; got {_named(path)}: {reason}")
    folder = Folder(traces, ranks)
    fates = folder.fold()
    names: list[str] = []
    result = model
    if not inplace:
        result, names = _rebuild(model, traces, (args, kwargs) if known else None)
    difference = None
    if known:
        try:
            inner = {p.dtype for p in model.parameters()}
            difference = _compare(expected, _run(result, args, kwargs), rtol, inner)
        except Exception:
            folder.restore()
            raise
    return result, FuseSummary(fates, tuple(names), tuple(traces.untraced), difference)


def _check(model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"fuse: model must be a torch.nn.Module; got {type(model).__name__}")
    for path, module in model.named_modules():
        if module.training:
            found = f"got {_named(path)} in training mode; call model.eval() first"
            raise ValueError(f"fuse: every module must be in evaluation mode; {found}")


def _named(path: str) -> str:
    return f"'{path}'" if path else "the model itself"


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if example_inputs is None:
        return (), {}
    if isinstance(example_inputs, dict):
        return (), example_inputs
    return (tuple(example_inputs), {}) if isinstance(example_inputs, (tuple, list)) else ((example_inputs,), {})


def _rebuild(model: Any, traces: Traces, inputs: Any) -> tuple[Any, list[str]]:
    """Return a model that runs the graphs, and the names of what they do in place."""
    names: list[str] = []
    for region in traces.regions:
        graph_module = torch.fx.GraphModule(region.module, region.graph, type(region.module).__name__).eval()
        placed = None
        if inputs is not None and not region.path:
            args, kwargs = _copied(inputs)
            bound = inspect.signature(region.module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            placed = bound.args if not bound.kwargs else None
        with torch.no_grad():
            written = write_in_place(region, graph_module, placed)
        names += [f"{region.path}.{name}" if region.path else name for name in written]
        if not region.path:
            return graph_module, names
        parent, _, name = region.path.rpartition(".")
        setattr(model.get_submodule(parent), name, graph_module)
    return model, names


# ---- Runs, and what comes of them ----


def _copied(values: Any) -> Any:
    """Tensors of any nesting, which a model may write into."""
    if isinstance(values, torch.Tensor):
        return values.clone()
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(_copied(value) for value in values)
    return values


def _run(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = _copied((args, kwargs))
    with torch.no_grad():
        return _copied(model(*args, **kwargs))


def _run_and_look(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[Any, int]]:
    """Return the outputs, and how many axes the inputs of batch norms have, 0 where calls differ."""
    ranks: dict[Any, int] = {}

    def look(module: Any, inputs: tuple[Any, ...]) -> None:
        rank = inputs[0].dim() if inputs else 0
        ranks[module] = rank if ranks.setdefault(module, rank) == rank else 0

    hooks = [m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, _BatchNorm)]
    try:
        return _run(model, args, kwargs), ranks
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, (tuple, list)):
        for value in outputs:
            yield from _tensors(value)


def _compare(expected: Any, outputs: Any, rtol: float | None, inner: set[torch.dtype]) -> float:
    """Return the largest difference, over the largest expected value of its tensor."""
    inner_tolerance = max((TOLERANCES.get(dtype, 0.0) for dtype in inner), default=0.0)
    pairs = list(_tensors(expected)), list(_tensors(outputs))
    shapes = [[tuple(t.shape) for t in tensors] for tensors in pairs]
    if shapes[0] != shapes[1]:
        raise RuntimeError(f"fuse: outputs must have the shapes of the model's, {shapes[0]}; got {shapes[1]}")
    largest = 0.0
    for old, new in zip(*pairs, strict=True):
        allowed = 0.0
        if rtol is not None:
            allowed = rtol
        elif old.dtype in TOLERANCES:  # an output of a wider dtype has been computed in those of the parameters
            allowed = max(TOLERANCES[old.dtype], inner_tolerance)
        a, b = old.detach().double(), new.detach().double()
        finite = torch.isfinite(a)
        same = torch.equal(finite, torch.isfinite(b)) and torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num())
        scale = a[finite].abs().max().item() if finite.any() else 0.0
        error = (a - b)[finite].abs().max().item() if finite.any() else 0.0
        difference = error / scale if scale else error
        if not same or not difference <= allowed:
            found = f"a difference of {difference:.3g}" if same else "infinities or NaN in other places"
            remedy = "pass a larger rtol if that will do, or inputs that the model is for"
            raise RuntimeError(f"fuse: outputs must agree to within rtol={allowed:g}; got {found}; {remedy}")
        largest = max(largest, difference)
    return largest
