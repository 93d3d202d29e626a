#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), drmeter, the dynamic range (DR) of noise of several lengths, and of a sine.
# One would expect a number for any length, and 0 for a sine, whose peak is the RMS times the root of two, which DR takes as its base.
# What happens: with a length that is a whole multiple of three seconds, the meter's block, such as an excerpt of 30 s, it says "No data,
# dynamic range not measurable" (5.1 says nan), as no samples are left over for a last block. A steady sine of 20 s has -8.45 dB, since all
# blocks of the loudest level are added up but divided by the number that makes a fifth: seven blocks count where one should.
# What to do: cut or pad so that the length is no multiple of three seconds, and do not use it on steady or synthetic sound.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import re
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def meter(samples):
    command = [FFMPEG, "-hide_banner", "-f", "f32le", "-ar", "44100", "-ac", "1", "-i", "-", "-af", "drmeter", "-f", "null", "-"]
    said = subprocess.run(command, input=samples.astype("<f4").tobytes(), capture_output=True, check=True).stderr.decode()
    found = re.search(r"Overall DR: (\S+)", said)
    assert found or "No data, dynamic range not measurable" in said
    return float(found[1]) if found else None

random = np.random.default_rng(0)
noise = 0.1 * random.standard_normal(61 * 44100)
for seconds in (29, 30, 31, 59, 60, 61):
    value = meter(noise[:seconds * 44100])
    print(f"{seconds} s of noise: {value}")
    assert value is None if seconds % 3 == 0 else 8 < value < 12
assert meter(noise[:30 * 44100 + 1]) is not None

for seconds, blocks, fifth in ((20, 7, 1), (61, 21, 4)):
    value = meter(0.5 * np.sin(2 * np.pi * 1000 * np.arange(seconds * 44100) / 44100))
    print(f"{seconds} s of a sine: {value} dB; 10 log10({blocks} / {fifth}) is {10 * np.log10(blocks / fifth):.2f}")
    assert abs(value + 10 * np.log10(blocks / fifth)) < 0.02
EOF
