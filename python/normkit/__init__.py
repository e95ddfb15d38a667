"""Normalization of tensors: batch, layer, group, instance and RMS norm, z-score and min-max scaling.

Every function takes NumPy arrays, PyTorch tensors and other arrays that export DLPack, in any memory layout, and
returns an array of the same library; the layers (`normkit.layers`) add parameters and their gradients. Results are the
same bits on every instruction set and for any number of threads.
"""

from normkit import _core
from normkit._core import (
    BatchNormState,
    FoldReport,
    Moments,
    add_layer_norm,
    add_rms_norm,
    batch_norm,
    batch_norm_backward,
    build_info,
    fold_batch_norm,
    get_num_threads,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    min_max_scale,
    moments,
    rms_norm,
    rms_norm_backward,
    set_num_threads,
    standardize,
)
from normkit.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm

__version__: str = _core.__version__  # type: ignore[attr-defined]  # stubs leave out such names

__all__ = [
    "BatchNorm",
    "BatchNormState",
    "FoldReport",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Moments",
    "RMSNorm",
    "__version__",
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_norm_backward",
    "build_info",
    "fold_batch_norm",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "min_max_scale",
    "moments",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "standardize",
]
