"""What can be timed: one row per operation. Knows no library, no shape and no layout.

To add an operation, add a row here, a line to the table of each provider that has it, and its shapes to matrix.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

EPS = 2.0**-17  # a little below 1e-5, and the same number in every precision that a library takes it in
GROUPS = 32


@dataclass(frozen=True)
class Operation:
    """One operation: what it computes, in the oracle's terms, and what it cannot avoid to move.

    `per` says what has a statistic of its own: a "channel", a "sample", a "group" of a sample's channels or an
    "instance", that is a sample's channel. `reads` and `writes` count tensors of the size of x; weights and statistics
    are not counted.
    """

    name: str
    per: str
    reads: int = 1
    writes: int = 1
    weight: bool = True
    bias: bool = True
    centred: bool = True
    given: bool = False  # the statistics are given: running averages
    eps: float = EPS
    sums: bool = False  # x + residual is normalized, and returned too
    fused: bool = False  # y = relu(normalized + residual)
    backward: bool = False  # dx, dweight and dbias, from dy, x and the saved statistics

    @property
    def forward(self) -> str:
        """The name of the operation that this one is the backward pass of; else its own."""
        return self.name.removesuffix("_backward")


def _backward(forward: Operation, name: str) -> Operation:
    return replace(forward, name=f"{name}_backward", reads=2, backward=True)


_batch = Operation("batch_norm_training", "channel")
_batch_given = Operation("batch_norm_inference", "channel", given=True)
_layer = Operation("layer_norm", "sample")
_rms = Operation("rms_norm", "sample", bias=False, centred=False)
_group = Operation("group_norm", "group")
_instance = Operation("instance_norm", "instance")

OPERATIONS = {
    operation.name: operation
    for operation in (
        _batch,
        _batch_given,
        _layer,
        _rms,
        _group,
        _instance,
        replace(_layer, name="add_layer_norm", reads=2, writes=2, sums=True),
        replace(_rms, name="add_rms_norm", reads=2, writes=2, sums=True),
        replace(_batch, name="batch_norm_training_residual_relu", reads=2, fused=True),
        replace(_batch_given, name="batch_norm_inference_residual_relu", reads=2, fused=True),
        _backward(_batch, "batch_norm_training"),
        _backward(_layer, "layer_norm"),
        _backward(_rms, "rms_norm"),
        _backward(_group, "group_norm"),
        _backward(_instance, "instance_norm"),
        Operation("standardize", "channel", weight=False, bias=False, eps=0.0),
        Operation("min_max_scale", "channel", weight=False, bias=False),
    )
}
