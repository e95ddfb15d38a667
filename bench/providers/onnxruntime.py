"""ONNX Runtime: a model of one node, made in memory, run through bound buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from operations import EPS, GROUPS
from providers import Unsupported

if TYPE_CHECKING:
    from workloads import Data, Workload

VERSION = onnxruntime.__version__
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
OPSET, IR_VERSION = 23, 10

# The operation, the arrays it takes beside x, its attributes, and its outputs in our order; "" where one is not wanted.
Node = tuple[str, tuple[str, ...], dict[str, Any], tuple[str, ...]]
CONTRIBUTED = "com.microsoft"
NODES: dict[str, Node] = {
    "batch_norm_inference": (
        *("BatchNormalization", ("weight", "bias", "running_mean", "running_var"), {"epsilon": EPS}, ("y",)),
    ),
    "layer_norm": ("LayerNormalization", ("weight", "bias"), {"epsilon": EPS, "axis": 1}, ("y",)),
    "rms_norm": ("RMSNormalization", ("weight",), {"epsilon": EPS, "axis": 1}, ("y",)),
    "group_norm": ("GroupNormalization", ("weight", "bias"), {"epsilon": EPS, "num_groups": GROUPS}, ("y",)),
    "instance_norm": ("InstanceNormalization", ("weight", "bias"), {"epsilon": EPS}, ("y",)),
    "add_layer_norm": (
        *("SkipLayerNormalization", ("residual", "weight", "bias"), {"epsilon": EPS}, ("y", "", "", "s")),
    ),
    "add_rms_norm": (
        *("SkipSimplifiedLayerNormalization", ("residual", "weight"), {"epsilon": EPS}, ("y", "", "", "s")),
    ),
}

_threads = 1


def set_threads(threads: int) -> None:
    """Set the threads of the sessions made from now on."""
    global _threads
    _threads = threads


def _shape(workload: Workload) -> tuple[int, ...]:
    # The contributed operations want (batch, position, feature).
    return (1, *workload.shape) if workload.operation.sums else workload.shape


def _session(workload: Workload, data: Data, node: Node) -> onnxruntime.InferenceSession:
    kind, parameters, attributes, outputs = node
    element, shape = TYPES[workload.dtype], _shape(workload)
    inputs = ["x", *(["residual"] if "residual" in parameters else [])]
    constants = [name for name in parameters if name != "residual"]
    graph = helper.make_graph(
        [
            helper.make_node(
                kind, ["x", *parameters], outputs, domain=CONTRIBUTED if kind.startswith("Skip") else "", **attributes
            )
        ],
        "one",
        [helper.make_tensor_value_info(name, element, shape) for name in inputs],
        [helper.make_tensor_value_info(name, element, shape) for name in outputs if name],
        [numpy_helper.from_array(getattr(data, name).astype(data.x.dtype), name) for name in constants],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = _threads, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def prepare(workload: Workload, data: Data, ready: bool) -> Callable[[], Any] | None:
    """Return a run of the session into ready buffers."""
    node = NODES.get(workload.operation.name)
    if not ready or node is None:
        return None
    if workload.layout == "NHWC" or workload.dtype not in TYPES:
        raise Unsupported(f"no {workload.dtype} {workload.layout}")
    try:
        session = _session(workload, data, node)
        binding, shape, buffers = session.io_binding(), _shape(workload), workload.buffers()
        for name in (i.name for i in session.get_inputs()):
            array = getattr(data, name)
            binding.bind_input(name, "cpu", 0, array.dtype, shape, array.ctypes.data)
        for name, buffer in zip((n for n in node[3] if n), buffers, strict=True):
            binding.bind_output(name, "cpu", 0, buffer.dtype, shape, buffer.ctypes.data)
        session.run_with_iobinding(binding)
    except Exception as error:  # of several kinds that have no better base
        raise Unsupported(str(error).splitlines()[0][:200]) from None

    def call() -> tuple[np.ndarray, ...]:
        session.run_with_iobinding(binding)
        return buffers

    return call


def results(workload: Workload, result: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return all results."""
    return result
