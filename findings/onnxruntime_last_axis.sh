#!/usr/bin/env bash
# onnxruntime 1.32.0 on the CPU, one thread: soft masks of four stems by Softmax over the axis of the stems, and a real mask times a complex
# spectrogram whose last axis holds the real and the imaginary part.
# One would expect both to take about as long as the same numbers by Exp, ReduceMax, ReduceSum and Div, and by a mask that is written twice.
# What happens: Softmax over any axis but the last takes 4 to 10 times as long, and a product whose last axis of two is broadcast 5 to 8 times.
# In a small separation network this was a quarter of the whole time.
# What to do: export a softmax over channels as exponentials and a sum, and concatenate a mask with itself before the product.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
from time import process_time
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", version("onnxruntime"))

def session(nodes, inputs, constants=()):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
                              initializer=[numpy_helper.from_array(value, name) for name, value in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

def compare(what, plain, other, feeds):
    results, times = [], []
    for way in (plain, other):
        results.append(way.run(None, feeds)[0])
        took = []
        for _ in range(25):
            start = process_time()
            way.run(None, feeds)
            took.append(process_time() - start)
        times.append(min(took))
    assert np.allclose(*results, atol=1e-6)
    print(f"{what}: {times[0] * 1e3:.2f} ms against {times[1] * 1e3:.2f} ms, {times[0] / times[1]:.1f} times as long")
    assert times[0] > 1.7 * times[1]

node, random = helper.make_node, np.random.default_rng(0)
logits = random.standard_normal((1, 4, 2, 32, 1536)).astype(np.float32)
compare("softmax over four stems",
        session([node("Softmax", ["x"], ["out"], axis=1)], {"x": logits.shape}),
        session([node("ReduceMax", ["x"], ["m"], axes=[1]), node("Sub", ["x", "m"], ["d"]), node("Exp", ["d"], ["e"]),
                 node("ReduceSum", ["e", "axes"], ["s"]), node("Div", ["e", "s"], ["out"])],
                {"x": logits.shape}, [("axes", np.array([1]))]), {"x": logits})
mask = random.random((4, 2, 32, 2049, 1)).astype(np.float32)
mixture = random.standard_normal((2, 32, 2049, 2)).astype(np.float32)
shapes = {"mask": mask.shape, "mixture": mixture.shape}
compare("mask times spectrogram",
        session([node("Mul", ["mask", "mixture"], ["out"])], shapes),
        session([node("Concat", ["mask", "mask"], ["two"], axis=-1), node("Mul", ["two", "mixture"], ["out"])], shapes),
        {"mask": mask, "mixture": mixture})
EOF
