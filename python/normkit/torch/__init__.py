"""normkit in PyTorch's models."""

from normkit.torch.fuse import fuse
from normkit.torch.fuse_summary import BatchNormFate, FuseSummary

__all__ = ["BatchNormFate", "FuseSummary", "fuse"]
