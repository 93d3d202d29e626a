#!/usr/bin/env bash
# librosa 0.11.0 with soxr 1.1.0 and scipy 1.17.1, one second and other lengths from 44,100 to 48,000 Hz.
# One would expect 44,100 samples to become exactly 48,000, as they do in soxr, which librosa calls.
# What happens: librosa multiplies by the rounded ratio of the rates, rounds up, and adds a zero to reach that length: 48,001 (three seconds come out right). Two stems
# resampled by librosa and by soxr itself can no longer be subtracted, and the last sample is no audio.
# What to do: call soxr.resample, or cut to the length that you computed with integers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile librosa==0.11.0 soxr==1.1.0 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import librosa
import numpy as np
import soxr

print("librosa", version("librosa"), "soxr", version("soxr"))
longer = {}
for seconds in (1, 2, 3, 10, 30, 60):
    audio = np.ones(44100 * seconds, np.float32)
    ours = librosa.resample(audio, orig_sr=44100, target_sr=48000)
    longer[seconds] = len(ours) - 48000 * seconds
    print(f"{seconds} s: librosa {len(ours)}, soxr {len(soxr.resample(audio, 44100, 48000))}, exact {48000 * seconds}, "
          f"librosa's last sample {ours[-1]:.3f}")
    assert len(soxr.resample(audio, 44100, 48000)) == 48000 * seconds
assert longer[1] == 1
EOF
