#!/usr/bin/env bash
# essentia 2.1b6.dev1389, Windowing(type="hann") with its defaults, on a frame of 1,024 ones.
# One would expect a Hann window as scipy and librosa have it for spectra: periodic, 1 at its middle.
# What happens: it is scaled to sum to 2, so the middle is 0.0039 and a spectrum is 48 dB lower; it is symmetric; and the frame's halves
# are swapped ("zero phase"), so that FFT gives other phases. Magnitudes look right apart from a factor; masks applied to
# such a spectrum and turned back with another library's inverse give halves in the wrong order.
# What to do: Windowing(type="hann", normalized=False, zeroPhase=False, symmetric=False).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile essentia==2.1b6.dev1389 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import essentia
import numpy as np
import scipy.signal

essentia.log.infoActive = False
import essentia.standard as es

ones = np.ones(1024, np.float32)
periodic, symmetric = (scipy.signal.get_window("hann", 1024, fftbins=b) for b in (True, False))
default = es.Windowing(type="hann")(ones)
plain = es.Windowing(type="hann", normalized=False, zeroPhase=False, symmetric=False)(ones)
print("essentia", version("essentia"), "scipy", version("scipy"))
print(f"sum {default.sum():.3f} instead of {periodic.sum():.0f}, largest value {default.max():.5f} at places {np.flatnonzero(default == default.max())}")
swapped = np.roll(default, 512) / default.max()
print(f"with the halves swapped back and scaled, it differs from the symmetric window by {abs(swapped - symmetric / symmetric.max()).max():.1e}, "
      f"from the periodic one by {abs(swapped - periodic).max():.1e}; with all three options off from the periodic one by {abs(plain - periodic).max():.1e}")
assert abs(default.sum() - 2) < 1e-3 and default[0] > 0.99 * default.max() and default[512] < 0.01 * default.max()
assert abs(swapped - symmetric / symmetric.max()).max() < 1e-5 < abs(swapped - periodic).max()
assert abs(plain - periodic).max() < 1e-5
EOF
