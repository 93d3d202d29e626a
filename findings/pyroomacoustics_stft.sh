#!/usr/bin/env bash
# pyroomacoustics 0.10.1, the STFT used with its separation algorithms (AuxIVA, ILRMA): analysis, then synthesis with the matching window, frames
# of 2,048, hop 512.
# One would expect the input back in its place, as scipy and librosa give it.
# What happens: it comes back exact but 1,536 samples late (a frame less a hop), since the first frames begin before the sound,
# and of another length. Scores taken without care then measure the shift.
# What to do: drop the first frame - hop samples and cut to the input's length.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pyroomacoustics==0.10.1 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import pyroomacoustics as pra

frame, hop = 2048, 512
audio = np.random.default_rng(0).standard_normal(44100)
window = pra.hann(frame)
spectrum = pra.transform.stft.analysis(audio, frame, hop, win=window)
back = pra.transform.stft.synthesis(spectrum, frame, hop, win=pra.transform.stft.compute_synthesis_window(window, hop))
late = frame - hop
error = abs(back[late:44100] - audio[:44100 - late]).max()
print("pyroomacoustics", version("pyroomacoustics"))
print(f"{len(audio)} samples come back as {len(back)}; {late} samples late they equal the input within {error:.1e}; "
      f"in place they differ by {abs(back[:44100] - audio).max():.1f}")
assert error < 1e-9 and abs(back[:44100] - audio).max() > 1 and len(back) != len(audio)
EOF
