#!/usr/bin/env bash
# pedalboard 0.9.26, Convolution with impulse responses given as arrays: one click, the same louder and quieter, and a decaying noise.
# One would expect a convolution: a click of 1 gives the input back, one of 0.5 half of it, as in numpy.
# What happens: the response is scaled first so that the root of its energy is 1/8, whatever its level. A click of 1, of 0.5 or of 100
# turns the sound down by 18.06 dB. With mix=0.5 and a click of 1, which should change nothing, it is 5 dB down.
# What to do: for one channel, multiply the wet sound by 8 times the root of the response's energy (for two, of the louder channel's); to keep the
# dry level, mix outside.
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
random = np.random.default_rng(0)
sound = (0.05 * random.standard_normal((1, rate))).astype(np.float32)
print("pedalboard", version("pedalboard"))

def convolve(response, mix=1.0):
    return pedalboard.Convolution(np.float32(response)[None], mix, sample_rate=rate)(sound, rate)

for height in (1, 0.5, 100):
    out = convolve([height] + [0] * 999)
    gain = np.vdot(out, sound) / np.vdot(sound, sound)
    rest = abs(out - gain * sound).max()
    print(f"a click of {height}: gain {gain:.4f}, which is {20 * np.log10(gain):.2f} dB, the rest {rest:.0e}")
    assert abs(gain - 0.125) < 1e-4 and rest < 1e-5
half = convolve([1] + [0] * 999, 0.5)
print(f"a click of 1 at mix=0.5: {20 * np.log10(half.std() / sound.std()):.2f} dB")
assert abs(20 * np.log10(half.std() / sound.std()) + 5) < 0.1

room = random.standard_normal(8000) * np.exp(-np.arange(8000) / 1500)
true = np.convolve(sound[0], room)[:rate]
out = convolve(room)[0]
gain = np.vdot(out, true) / np.vdot(true, true)
print(f"a room: {20 * np.log10(gain):.1f} dB; after the correction it equals numpy's convolution within "
      f"{20 * np.log10((out * 8 * np.sqrt((room**2).sum()) - true).std() / true.std()):.0f} dB")
assert gain < 0.01 and (out * 8 * np.sqrt((room**2).sum()) - true).std() < 1e-3 * true.std()
EOF
