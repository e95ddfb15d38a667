"""Layers: the normalizers with parameters, their gradients and, where there are any, moving averages.

For training without a framework that differentiates. A layer is called on `x`; `backward` then takes the gradient of
the result and gives that of `x`, and adds up those of the parameters, as PyTorch does. `state_dict` and
`load_state_dict` exchange with PyTorch's modules, key for key.

Calls and `backward` take turns. In between, a layer holds references to what `backward` needs: `x`, the mask, and with
"relu" the result. Neither they nor the parameters may change until then.
"""

from normkit.layers.base import Layer
from normkit.layers.channels import BatchNorm, GroupNorm, InstanceNorm
from normkit.layers.trailing import LayerNorm, RMSNorm

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "Layer", "LayerNorm", "RMSNorm"]
