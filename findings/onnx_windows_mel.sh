#!/usr/bin/env bash
# onnx 1.23.2 (its reference evaluator) and onnxruntime 1.32.0: the operators HammingWindow and MelWeightMatrix, beside
# scipy's window and the formula of an HTK mel filter bank.
# One would expect Hamming's 0.54 and triangles whose corners lie where the mel scale puts them, as other libraries have.
# What happens: the standard's Hamming window uses 25/46 = 0.5435, and its mel triangles have their corners rounded down to whole bins, so
# that weights differ by up to 0.99 of 1. Both programs agree with each other: it is the standard that differs.
# What to do: export windows and mel matrices as constants, not as these operators.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import onnxruntime
import scipy.signal
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", version("onnx"), "onnxruntime", version("onnxruntime"), "scipy", version("scipy"))

def both(operator, values):
    names = [f"i{n}" for n in range(len(values))]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["out"])], "g", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names, values)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    a = ReferenceEvaluator(model).run(None, {})[0]
    b = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {})[0]
    assert abs(a - b).max() < 1e-5
    return b

hamming = both("HammingWindow", [np.int64(512)])
expected = scipy.signal.get_window("hamming", 512)
print(f"Hamming window's first value: {hamming[0]:.5f} in ONNX, {expected[0]:.5f} in scipy")
assert abs(hamming[0] - (2 * 25 / 46 - 1)) < 1e-4 and abs(expected[0] - 0.08) < 1e-6
mel = both("MelWeightMatrix", [np.int64(40), np.int64(512), np.int64(16000), np.float32(0), np.float32(8000)]).T
corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)
bins = np.arange(257) * 16000 / 512
rise = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
fall = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
expected = np.maximum(0, np.minimum(rise, fall))
print(f"mel matrices {mel.shape}: largest difference of weights {abs(mel - expected).max():.2f}; a noise's bands differ by up to "
      f"{abs(10 * np.log10(mel.sum(1) / expected.sum(1))).max():.1f} dB")
assert mel.shape == expected.shape and abs(mel - expected).max() > 0.9
EOF
