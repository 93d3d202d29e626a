#!/usr/bin/env bash
# soxr 1.1.0, 16-bit digital silence and a steady value resampled from 44,100 to 48,000 Hz.
# One would expect silence to stay silence: every filter gives zeros for zeros, and the documentation names no noise.
# What happens: integers are dithered. Nearly a quarter of the samples of silence are 1 or -1, at -97 dBFS, and a steady 100 is
# now and then 99 or 101. Gates, silence detectors and tests for empty stems see sound. It happens even where both rates are the same.
# 32-bit integers and floats are not dithered. The noise is the same in every run.
# What to do: resample in floats and convert at the end.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soxr==1.1.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import soxr

print("soxr", soxr.__version__)
for dtype in ("int16", "int32", "float32"):
    y = soxr.resample(np.zeros((44100, 2), dtype), 44100, 48000)
    share = (y != 0).mean()
    print(f"{dtype} silence: {100 * share:.1f} % of the samples are not zero, the largest is {abs(y).max()}")
    assert (0.2 < share < 0.3 and abs(y).max() == 1) if dtype == "int16" else share == 0
    if dtype == "int16":
        again = np.array_equal(y, soxr.resample(np.zeros((44100, 2), dtype), 44100, 48000))
        level = 20 * np.log10(y.std() / 32768)
        print(f"    RMS {level:.1f} dBFS; left and right differ: {(y[:, 0] != y[:, 1]).any()}; a second run is the same: {again}")
        assert abs(level + 96.6) < 0.5 and again
steady = soxr.resample(np.full(44100, 100, "int16"), 44100, 48000)[1000:-1000]
values, counts = np.unique(steady, return_counts=True)
print("a steady 100 becomes", dict(zip(values.tolist(), counts.tolist())))
assert values.tolist() == [99, 100, 101]
same = soxr.resample(np.zeros(44100, "int16"), 44100, 44100)
print(f"from 44,100 to 44,100 Hz, {100 * (same != 0).mean():.1f} % of the samples of silence are not zero")
assert 0.2 < (same != 0).mean() < 0.3
EOF
