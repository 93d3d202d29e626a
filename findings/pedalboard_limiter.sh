#!/usr/bin/env bash
# pedalboard 0.9.26, Limiter on a quiet tone far below its threshold, and on loud noise far above it.
# One would expect a limiter to leave what is below the threshold alone and to keep the rest at or below it.
# What happens: the quiet tone comes out louder, by 3.75 dB at a threshold of 0 dB and by 23.75 dB at -20 dB. Loud noise
# is not held at the threshold but clipped at full scale.
# What to do: use Clipping for a ceiling, or undo the gain: 3.75 dB less the threshold.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pedalboard==0.9.26 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import pedalboard

rate = 44100
tone = (0.01 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)[None]
noise = np.random.default_rng(0).standard_normal((1, 2 * rate)).astype(np.float32) / 2
print("pedalboard", version("pedalboard"))
for threshold in (0, -6, -20):
    limiter = pedalboard.Limiter(threshold_db=threshold)
    quiet, loud = limiter(tone, rate)[:, rate:], limiter(noise, rate)
    gain = 20 * np.log10(quiet.std() / tone[:, rate:].std())
    print(f"threshold {threshold} dB: a tone at -40 dBFS gains {gain:.2f} dB; loud noise peaks at {20 * np.log10(abs(loud).max()):.2f} dBFS")
    assert abs(gain - (3.75 - threshold)) < 0.1
    assert abs(abs(loud).max() - 1) < 1e-3
EOF
