"""A `Network` as an ONNX graph; the only file that needs the ``onnx`` package, so that workers don't load it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dsp.model.manifest import INPUT, OUTPUT
from dsp.model.network import Network

_OPSET = 17
_IR_VERSION = 9  # the oldest that carries this opset: what old runtimes still read


def to_onnx(network: Network, name: str) -> bytes:
    """One ONNX graph ``features`` float32[n, f] -> ``probabilities`` float32[n, heads], serialized."""
    features, heads = network.linear.shape
    tensors = {"linear": network.linear, "bias": network.bias}
    if network.hidden.shape[1]:
        tensors |= {"hidden": network.hidden, "hidden_bias": network.hidden_bias, "deep": network.deep}
        nodes = [
            helper.make_node("Gemm", [INPUT, "linear", "bias"], ["wide"]),
            helper.make_node("Gemm", [INPUT, "hidden", "hidden_bias"], ["activation"]),
            helper.make_node("Relu", ["activation"], ["units"]),
            helper.make_node("Gemm", ["units", "deep", "wide"], ["logits"]),
        ]
    else:
        nodes = [helper.make_node("Gemm", [INPUT, "linear", "bias"], ["logits"])]
    nodes.append(helper.make_node("Sigmoid", ["logits"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", heads])],
        [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in tensors.items()],
    )
    model = helper.make_model(
        graph, producer_name="dsp", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
