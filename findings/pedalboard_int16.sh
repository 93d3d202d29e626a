#!/usr/bin/env bash
# pedalboard 0.9.26 and soundfile 0.14.0 read the same 16-bit WAV file.
# One would expect both to divide by 32,768 and so to give the same floats, within -1 and 1.
# What happens: pedalboard divides by 32,767. Its floats are larger by 1 in 32,767, the lowest sample is below -1, and a stem read by one
# library does not cancel the same stem read by the other: -90 dB is left of it. What soundfile read and pedalboard writes as 16 bits
# has one sample in four changed by one step.
# What to do: do not mix the two in one pipeline that must sum exactly.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pedalboard==0.9.26 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import soundfile
from pedalboard.io import AudioFile

every = np.arange(-32768, 32768).astype(np.int16)
soundfile.write("a.wav", every, 44100, subtype="PCM_16")
with AudioFile("a.wav") as file:
    theirs = file.read(file.frames)[0].astype(float)
floats = soundfile.read("a.wav")[0]
with AudioFile("b.wav", "w", 44100, 1, bit_depth=16) as file:
    file.write(floats.astype(np.float32))
back = soundfile.read("b.wav", dtype="int16")[0]
changed = np.mean(back != every)
rest = 20 * np.log10((theirs - floats).std() / floats.std())
print("pedalboard", version("pedalboard"), "soundfile", version("soundfile"))
print(f"lowest sample: pedalboard {theirs.min():.7f}, soundfile {floats.min():.7f}; difference {rest:.1f} dB")
print(f"read by soundfile and written by pedalboard as 16 bits: {100 * changed:.1f} % of the samples changed, by {abs(back.astype(int) - every).max()}")
assert floats.min() == -1 and abs(theirs.min() + 32768 / 32767) < 1e-7 and abs(rest + 90.3) < 0.5
assert abs(changed - 0.25) < 0.01 and abs(back.astype(int) - every).max() == 1
EOF
