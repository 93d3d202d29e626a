#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), highpass=f=1, as one writes it to remove an offset, on 20 s of noise in float samples.
# One would expect nothing but the offset to change.
# What happens: the coefficients are computed for 32-bit floats, too coarse for 1 Hz at 44.1 kHz; the filter is unstable and the output grows
# without bound. From 2 Hz on all is well, and so it is at 1 Hz in FFmpeg 5.1.
# What to do: add precision=f64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def peak(filter):
    source = "anoisesrc=d=20:a=0.1:r=44100:seed=1,aformat=fltp"
    pcm = subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", f"{source},{filter}", "-f", "f32le", "-"], capture_output=True, check=True).stdout
    top = np.max(abs(np.frombuffer(pcm, np.float32)))
    print(f"{filter}: largest sample {top:.3g}")
    return top

assert not peak("highpass=f=1") < 1e6
assert peak("highpass=f=2") < 0.2
assert peak("highpass=f=1:precision=f64") < 0.2
EOF
