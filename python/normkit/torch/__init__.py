"""
PyTorch's normalization modules on normkit's kernels.

Each class is a subclass of the one of the same name in `torch.nn` that replaces its `forward`, on the CPU and, in a
build with CUDA, on a GPU. Where the kernels do not apply, such as on other devices and under transforms of
`torch.func`, it is PyTorch's own forward that runs; docs/torch.md says exactly when. `fuse` is for models in
evaluation: it folds their batch norms into the layers before.
"""

from normkit.torch.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkit.torch.convert import convert, revert
from normkit.torch.fuse import fuse
from normkit.torch.fuse_summary import BatchNormFate, FuseSummary
from normkit.torch.samples import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkit.torch.trailing import LayerNorm, RMSNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormFate",
    "FuseSummary",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "convert",
    "fuse",
    "revert",
]
