#!/usr/bin/env bash
# onnxruntime 1.32.0, the energy of each channel of three minutes of stereo noise at 44.1 kHz, by ReduceSumSquare and ReduceL2 over the last axis.
# One would expect some seven digits, as numpy gives by adding in pairs.
# What happens: it is 1.1 % too low. Each row is added up one sample after the other in one float, to the bit what a running sum gives. In
# music that goes from loud to soft the soft part is lost: after 90 s of noise, 90 s that are 20 dB softer add next to nothing instead of 1 %.
# ReduceMean of the squares is 0.05 % off. The number of threads makes no difference.
# What to do: reduce in two steps, first over blocks of some thousand samples, then over the blocks.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__, "numpy", np.__version__)

def reduce(kind, audio, threads=1):
    node = helper.make_node(kind, ["x"], ["y"], axes=[-1], keepdims=0)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, audio.shape)], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options).run(None, {"x": audio})[0]

block = 4096
length = 180 * 44100 // block * block
noise = (0.1 * np.random.default_rng(0).standard_normal((2, length))).astype(np.float32)
true = (noise.astype(float) ** 2).sum(1)
results = {
    "numpy": (noise ** 2).sum(1),
    "a running sum in one float": np.cumsum(noise ** 2, axis=1)[:, -1],
    "ReduceSumSquare": reduce("ReduceSumSquare", noise),
    "ReduceSumSquare with two threads": reduce("ReduceSumSquare", noise, 2),
    "ReduceL2, squared": reduce("ReduceL2", noise) ** 2,
    "ReduceMean of the squares": reduce("ReduceMean", noise ** 2) * length,
    "ReduceSumSquare in two steps": reduce("ReduceSumSquare", noise.reshape(2, -1, block)).sum(1),
}
off = {name: 100 * (value / true - 1) for name, value in results.items()}
for name, value in off.items():
    print(f"{name}: {value[0]:+.5f} % and {value[1]:+.5f} %")
for name in ("ReduceSumSquare", "ReduceSumSquare with two threads", "ReduceL2, squared"):
    assert (off[name] < -0.5).all() and abs(off[name] - off["a running sum in one float"]).max() < 0.01
assert abs(off["numpy"]).max() < 1e-4 and abs(off["ReduceSumSquare in two steps"]).max() < 0.001
assert abs(off["ReduceMean of the squares"]).min() > 0.01

half = length // 2
noise[:, half:] /= 10
loud = noise.copy()
loud[:, half:] = 0
added = [100 * (total(noise) / total(loud) - 1)[0] for total in (lambda x: (x.astype(float) ** 2).sum(1), lambda x: reduce("ReduceSumSquare", x))]
print(f"the softer half adds {added[0]:.4f} %, by ReduceSumSquare {added[1]:.4f} %")
assert added[0] > 0.9 and added[1] < 0.1
EOF
