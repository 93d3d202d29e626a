#!/usr/bin/env bash
# onnxconverter-common 1.16.0 and onnxruntime 1.32.0, a network that multiplies by constants, converted to float16 with keep_io_types by
# the convert_float_to_float16 of each.
# One would expect constants to be rounded to the nearest float16, which goes up to 65,504 and down to 6e-8.
# What happens: onnxconverter-common cuts everything above 10,000 to 10,000: a scale of 32,768 for 16-bit samples comes out 10.3 dB too soft,
# and frequencies of 44,100 and 16,000 Hz both become 10,000. A warning names only the largest. What is below 1e-7 becomes 1.2e-7. The function of
# the same name in onnxruntime.transformers, derived from it, rounds as one expects.
# What to do: use that one, or pass max_finite_val=65504.0 and min_positive_val=5.96e-08.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile onnx==1.23.2 onnxruntime==1.32.0 onnxconverter-common==1.16.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import warnings
from importlib.metadata import version
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16 as common
from onnxruntime.transformers import float16 as transformers

constants = np.array([8000, 16000, 32768, 44100, 1e-7, 6e-8], np.float32)

def scaled(convert, **options):
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(constants)]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "c"], ["y"])], "g", [inputs], [outputs],
                              [numpy_helper.from_array(constants, "c")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = convert(model, keep_io_types=True, **options)
    result = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.ones(len(constants), np.float32)})[0]
    return result, [str(one.message) for one in said if "truncated" in str(one.message)]

print("onnxconverter-common", version("onnxconverter-common"), "onnxruntime", version("onnxruntime"), "onnx", version("onnx"))
nearest = constants.astype(np.float16).astype(np.float32)
seen, said = scaled(common.convert_float_to_float16)
named, _ = scaled(common.convert_float_to_float16, max_finite_val=65504.0, min_positive_val=5.96e-8)
other, _ = scaled(transformers.convert_float_to_float16)
for name, values in (("constants", constants), ("nearest float16", nearest), ("onnxconverter-common", seen), ("with limits named", named),
                     ("onnxruntime.transformers", other)):
    print(f"{name}:", *(f"{value:.6g}" for value in values))
print(f"warnings: {said}; 32,768 is {20 * np.log10(seen[2] / 32768):.1f} dB off")
assert seen[0] == 8000 and (seen[1:4] == 10000).all() and said
assert (seen[4:] == np.float16(1e-7)).all() and nearest[5] < seen[5] / 1.5
assert (named == nearest).all() and (other == nearest).all()
EOF
