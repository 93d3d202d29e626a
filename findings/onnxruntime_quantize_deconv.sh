#!/usr/bin/env bash
# onnxruntime 1.32.0, quantize_dynamic and quantize_static (QOperator format) on a small network as a U-Net has at its waist: a convolution
# and a transposed one, with equally many weights.
# One would expect both to be quantized, and the file to be a quarter as large.
# What happens: the transposed convolution stays in float32 without a word, and with it half of the weights: the decoder of a separation network is
# neither smaller nor faster. Only the QDQ format wraps it, and whether that runs in integers is up to the provider.
# What to do: count the operators after quantizing; upsample and convolve in the network if it is to be quantized.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0
venv/bin/python - <<'EOF'
import logging
import os
from collections import Counter
from importlib.metadata import version
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
shape = [1, 64, 16, 16]
weights = [numpy_helper.from_array(random.standard_normal((64, 64, 3, 3)).astype(np.float32), name) for name in ("w", "v")]
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4), helper.make_node("ConvTranspose", ["a", "v"], ["y"], pads=[1] * 4)], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], initializer=weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "float.onnx")

class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": random.standard_normal(shape).astype(np.float32)}] * 2)
    def get_next(self):
        return next(self.batches, None)

quantize_dynamic("float.onnx", "dynamic.onnx")
quantize_static("float.onnx", "static.onnx", Reader(), quant_format=QuantFormat.QOperator)
print("onnxruntime", version("onnxruntime"), "onnx", version("onnx"))
for kind, integer in (("dynamic", "ConvInteger"), ("static", "QLinearConv")):
    model = onnx.load(kind + ".onnx")
    operators = Counter(node.op_type for node in model.graph.node)
    floats = sum(numpy_helper.to_array(t).size for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    size = os.path.getsize(kind + ".onnx") / os.path.getsize("float.onnx")
    print(f"{kind}: {dict(operators)}; {floats} of {2 * 64 * 64 * 9} weights are float; the file is {100 * size:.0f} % of the first")
    assert operators[integer] == 1 and operators["ConvTranspose"] == 1 and "Conv" not in operators
    assert 36864 <= floats < 37000 and 0.55 < size < 0.75
EOF
