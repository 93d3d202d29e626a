#!/usr/bin/env bash
# museval 0.4.1, two stems, the first of which rests for one second: once as digital zeros, once as noise at -100 dBFS, which nobody can hear.
# One would expect that a rest costs the resting stem that one window, and that both kinds of rest score alike.
# What happens: with zeros the window is NaN for the other stem too, although that one plays. With the noise the window counts for
# both, and the resting stem gets about -67 dB, so any mean over windows hangs on whether a recording was dithered.
# What to do: decide on rests by level, for each stem, before calling museval; never average its windows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile museval==0.4.1 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import museval
import numpy as np

rate = 8000
random = np.random.default_rng(0)
reference = 0.1 * random.standard_normal((2, 4 * rate, 1))
reference[0, rate:2 * rate] = 0
estimate = reference + 0.1 * reference[::-1] + 0.02 * random.standard_normal(reference.shape)
zeros = museval.evaluate(reference, estimate, win=rate, hop=rate)[0]
reference[0, rate:2 * rate] = 1e-5 * random.standard_normal((rate, 1))
hiss = museval.evaluate(reference, estimate, win=rate, hop=rate)[0]
print("museval", version("museval"))
print("SDR with a second of zeros, resting stem:", np.round(zeros[0], 1), "playing stem:", np.round(zeros[1], 1))
print("SDR with noise at -100 dBFS, resting stem:", np.round(hiss[0], 1), "playing stem:", np.round(hiss[1], 1))
print(f"mean of the resting stem: {np.nanmean(zeros[0]):.1f} dB with zeros, {hiss[0].mean():.1f} dB with noise")
assert np.isnan(zeros[:, 1]).all() and np.isfinite(zeros[:, [0, 2, 3]]).all()
assert hiss[0, 1] < -60 and hiss[1, 1] > 10
assert np.nanmean(zeros[0]) - hiss[0].mean() > 15
EOF
