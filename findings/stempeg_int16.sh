#!/usr/bin/env bash
# stempeg 0.2.6, the reader under musdb, on a stem file with five AAC tracks that it wrote itself. Needs ffmpeg and ffprobe.
# One would expect dtype=int16 to give 16-bit samples.
# What happens: the floats, all below 1, are cast without scaling, so every stem is read as zeros, without a warning.
# What to do: read floats, the default, and scale them yourself.
set -euo pipefail
ffmpeg -version | head -1
ffprobe -version | head -1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile stempeg==0.2.6 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import stempeg

t = np.arange(44100) / 44100
stems = np.stack([np.stack([0.5 * np.sin(2 * np.pi * 110 * k * t)] * 2, 1) for k in range(1, 6)])
stempeg.write_stems("song.stem.mp4", stems, sample_rate=44100, writer=stempeg.StreamsWriter())
floats, _ = stempeg.read_stems("song.stem.mp4", dtype=np.float32)
integers, _ = stempeg.read_stems("song.stem.mp4", dtype=np.int16)
print("stempeg", version("stempeg"))
print(f"as float32: {floats.shape}, largest sample {abs(floats).max():.3f}")
print(f"as int16: {integers.shape} {integers.dtype}, largest sample {abs(integers).max()}")
assert 0.45 < abs(floats).max() < 0.8
assert integers.dtype == np.int16 and integers.shape == floats.shape and not integers.any()
EOF
